//! Texts over defaults: which value of a setting holds, and where it came from.

use std::collections::BTreeMap;

use super::definition::{ConfigDef, Scope, Value};
use super::describe::{ConfigSource, ConfigSynonym};
use super::registry::definition;

/// What was set explicitly: parsed values by name. Anything else has its default.
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

    /// The broker's value, by its own name; none when it is unset and has no default.
    pub(super) fn broker(&self, name: &str) -> Option<Value> {
        let def = known(name);
        assert!(def.scope.of_broker(), "{name} is no setting of the broker");
        self.explicit(name).cloned().or_else(|| default_of(def))
    }

    /// The default that these broker values give a topic setting.
    pub(super) fn topic_default(&self, def: &ConfigDef) -> Value {
        let strongest = def.synonyms.iter().find_map(|s| Some(self.broker(s.name)?.scaled(s.scale)));
        strongest.expect("the last synonym of every topic setting has a default: tested in the registry")
    }

    /// Whether anything but built-in defaults determines a topic setting's default.
    pub(super) fn topic_default_is_explicit(&self, def: &ConfigDef) -> bool {
        def.synonyms.iter().any(|synonym| self.explicit(synonym.name).is_some())
    }

    /// Everything that could determine a setting, the strongest first, as far as these broker values go.
    pub(super) fn synonyms(&self, def: &'static ConfigDef) -> Vec<ConfigSynonym> {
        let own = [super::Synonym { name: def.name, scale: 1 }];
        let synonyms = if def.scope == Scope::Broker { own.as_slice() } else { def.synonyms };
        let mut rows = Vec::new();
        for synonym in synonyms {
            let of_broker = known(synonym.name);
            let mut add = |value: &Value, source| {
                rows.push(ConfigSynonym { name: of_broker.name, value: value.to_string(), source });
            };
            if let Some(value) = self.explicit(synonym.name) {
                add(value, ConfigSource::StaticBroker);
            }
            if let Some(value) = default_of(of_broker) {
                add(&value, ConfigSource::Default);
            }
        }
        rows
    }
}

/// The definition of a name that code, not a user, wrote.
pub(super) fn known(name: &str) -> &'static ConfigDef {
    definition(name).unwrap_or_else(|| panic!("{name} is not in the registry"))
}

fn default_of(def: &ConfigDef) -> Option<Value> {
    def.default.map(|text| def.parse(text).expect("defaults parse: tested in the registry"))
}
