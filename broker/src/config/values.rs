//! Texts over defaults: which value of a setting holds, and where it came from.

use std::collections::BTreeMap;

use super::definition::{ConfigDef, Scope, Synonym, Value};
use super::describe::{ConfigSource, ConfigSynonym};
use super::registry::definition;

/// What was set explicitly in one place: parsed values by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values {
    set: BTreeMap<&'static str, Value>,
}

impl Values {
    pub(super) fn set(&mut self, def: &'static ConfigDef, value: Value) {
        self.set.insert(def.name, value);
    }

    /// What was set under this name.
    pub(super) fn explicit(&self, name: &str) -> Option<&Value> {
        self.set.get(name)
    }

    /// All that was set, sorted by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static ConfigDef, &Value)> {
        self.set.iter().map(|(name, value)| (known(name), value))
    }
}

/// What the settings of a broker come from. Where none of it says anything, the defaults hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layers {
    /// Set for this broker while it ran.
    pub(super) own: Values,
    /// Set for all brokers while they ran.
    pub(super) cluster: Values,
    /// The configuration file, and over it the command line.
    pub(super) fixed: Values,
}

impl Layers {
    /// The strongest first.
    fn in_order(&self) -> [(&Values, ConfigSource); 3] {
        [
            (&self.own, ConfigSource::DynamicBroker),
            (&self.cluster, ConfigSource::DynamicDefault),
            (&self.fixed, ConfigSource::StaticBroker),
        ]
    }

    /// The broker's value, by its own name; none when it is unset and has no default.
    pub(super) fn broker(&self, name: &str) -> Option<Value> {
        let def = known(name);
        assert!(def.scope.of_broker(), "{name} is no setting of the broker");
        self.resolve(def).map(|(value, _)| value)
    }

    /// The value that these layers give a setting, of the broker or of a topic, and where it comes from. None when it
    /// is unset and has no default, as no topic setting is.
    pub(super) fn resolve(&self, def: &ConfigDef) -> Option<(Value, ConfigSource)> {
        let names = names(def);
        for (values, source) in self.in_order() {
            let set = names.iter().find_map(|s| Some(values.explicit(s.name)?.clone().scaled(s.scale)));
            if let Some(value) = set {
                return Some((value, source));
            }
        }
        let default = names.iter().find_map(|s| Some(default_of(known(s.name))?.scaled(s.scale)));
        default.map(|value| (value, ConfigSource::Default))
    }

    /// Everything that could determine a setting, the strongest first, as far as these layers go.
    pub(super) fn synonyms(&self, def: &ConfigDef) -> Vec<ConfigSynonym> {
        let names = names(def);
        let mut rows = Vec::new();
        let mut add = |name, value: &Value, source| {
            rows.push(ConfigSynonym { name, value: value.to_string(), source });
        };
        for (values, source) in self.in_order() {
            for synonym in &names {
                if let Some(value) = values.explicit(synonym.name) {
                    add(synonym.name, value, source);
                }
            }
        }
        for synonym in &names {
            if let Some(value) = default_of(known(synonym.name)) {
                add(synonym.name, &value, ConfigSource::Default);
            }
        }
        rows
    }
}

/// The broker's settings that determine one: itself, or what gives a topic's setting its default.
fn names(def: &ConfigDef) -> Vec<Synonym> {
    match def.scope {
        Scope::Broker => vec![Synonym { name: def.name, scale: 1 }],
        Scope::Topic | Scope::Both => def.synonyms.to_vec(),
    }
}

/// The definition of a name that code, not a user, wrote.
pub(super) fn known(name: &str) -> &'static ConfigDef {
    definition(name).unwrap_or_else(|| panic!("{name} is not in the registry"))
}

fn default_of(def: &ConfigDef) -> Option<Value> {
    def.default.map(|text| def.parse(text).expect("defaults parse: tested in the registry"))
}
