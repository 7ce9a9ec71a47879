//! What a setting is, and how its text becomes a value.

use std::fmt;

use super::endpoint;

/// Whom a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The broker; a topic cannot set it.
    Broker,
    /// A topic; its broker-wide default has another name, its synonym.
    Topic,
    /// Both, under one name: what the broker says holds for topics that say nothing.
    Both,
}

impl Scope {
    /// Whether the broker can set it.
    pub fn of_broker(self) -> bool {
        matches!(self, Scope::Broker | Scope::Both)
    }

    /// Whether a topic can set it.
    pub fn of_topic(self) -> bool {
        matches!(self, Scope::Topic | Scope::Both)
    }
}

/// When, and for whom, a setting of the broker can change. Those of a topic always can, for that topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// At a start of the broker.
    ReadOnly,
    /// At any time, for all brokers of the cluster or for one of them.
    ClusterWide,
    /// At any time, for one broker.
    PerBroker,
}

impl UpdateMode {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            UpdateMode::ReadOnly => "read-only",
            UpdateMode::ClusterWide => "cluster-wide",
            UpdateMode::PerBroker => "per-broker",
        }
    }
}

impl fmt::Display for UpdateMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a setting's text may be. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A 32-bit number.
    Int(i32, i32),
    /// A 64-bit number.
    Long(i64, i64),
    /// A decimal number.
    Double(f64, f64),
    /// Any text that is not empty.
    Text,
    /// One word out of these.
    OneOf(&'static [&'static str]),
    /// Any number of these words, separated by commas.
    ListOf(&'static [&'static str]),
    /// Addresses to listen on or to advertise, separated by commas: `HOST:PORT` or `NAME://HOST:PORT`.
    Endpoints,
}

/// A broker setting that gives a topic setting its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker's setting.
    pub name: &'static str,
    /// What its number is multiplied by: hours to milliseconds, and the like. 1: taken as it is.
    pub scale: i64,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// Its name.
    pub name: &'static str,
    /// Whom it is for.
    pub scope: Scope,
    /// What its text may be.
    pub kind: Kind,
    /// When it can change.
    pub update_mode: UpdateMode,
    /// Its text where nobody says anything; none: unset.
    pub default: Option<&'static str>,
    /// What it does, for people.
    pub doc: &'static str,
    /// Broker settings that give this topic setting its default, the strongest first. The last of them has a default.
    pub synonyms: &'static [Synonym],
}

impl ConfigDef {
    /// Whether its value is never shown. No setting holds a secret yet.
    pub fn is_sensitive(&self) -> bool {
        false
    }

    /// Whether it holds several values, which can be added and taken away one by one.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::ListOf(_) | Kind::Endpoints)
    }

    /// The value that `text` means, or why it means none.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self.kind {
            Kind::Bool if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Kind::Bool if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Kind::Int(min, max) => parse_number(text, min, max).map(Value::Int),
            Kind::Long(min, max) => parse_number(text, min, max).map(Value::Long),
            Kind::Double(min, max) => parse_number(text, min, max).map(Value::Double),
            Kind::Text if !text.is_empty() => Ok(Value::Text(text.to_owned())),
            Kind::OneOf(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::ListOf(words) => {
                let items = split_list(text);
                if items.iter().all(|item| words.contains(&item.as_str())) {
                    Ok(Value::List(items))
                } else {
                    Err(self.kind.to_string())
                }
            }
            Kind::Endpoints => {
                let endpoints = endpoint::parse_list(text).map_err(|error| error.to_string())?;
                Ok(Value::List(endpoints.iter().map(ToString::to_string).collect()))
            }
            Kind::Bool | Kind::Text | Kind::OneOf(_) => Err(self.kind.to_string()),
        }
        .map_err(|reason| if reason.is_empty() { self.kind.to_string() } else { reason })
    }
}

fn parse_number<N: std::str::FromStr + PartialOrd>(text: &str, min: N, max: N) -> Result<N, String> {
    // An empty reason: the kind says what is allowed. NaN is within no bounds.
    text.parse().ok().filter(|number| min <= *number && *number <= max).ok_or_else(String::new)
}

pub(super) fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Says what is allowed, so that it can follow "allowed: ".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("true or false"),
            Kind::Int(min, max) => range(f, "whole number", (min, *min == i32::MIN), (max, *max == i32::MAX)),
            Kind::Long(min, max) => {
                range(f, "whole number", (min, *min == i64::MIN), (max, *max == i64::MAX))
            }
            Kind::Double(min, max) => range(f, "number", (min, *min == f64::MIN), (max, *max == f64::MAX)),
            Kind::Text => f.write_str("text that is not empty"),
            Kind::OneOf([word]) => write!(f, "only {word}"),
            Kind::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Kind::ListOf(words) => write!(f, "a list, separated by commas, of {}", words.join(", ")),
            Kind::Endpoints => f.write_str("HOST:PORT or NAME://HOST:PORT, several separated by commas"),
        }
    }
}

/// Writes the bounds that really bound: each comes with whether it is the type's own.
fn range<N: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    (min, min_open): (N, bool),
    (max, max_open): (N, bool),
) -> fmt::Result {
    match (min_open, max_open) {
        (true, true) => write!(f, "a {what}"),
        (false, true) => write!(f, "a {what}, at least {min}"),
        (true, false) => write!(f, "a {what}, at most {max}"),
        (false, false) => write!(f, "a {what} from {min} to {max}"),
    }
}

/// A setting's value, in the type of its [`Kind`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`].
    Int(i32),
    /// Of [`Kind::Long`].
    Long(i64),
    /// Of [`Kind::Double`].
    Double(f64),
    /// Of [`Kind::Text`] and [`Kind::OneOf`].
    Text(String),
    /// Of [`Kind::ListOf`] and [`Kind::Endpoints`].
    List(Vec<String>),
}

impl Value {
    /// A number times `scale`, without overflow; anything else, and any number at scale 1, as it is.
    pub(super) fn scaled(self, scale: i64) -> Value {
        match self {
            value if scale == 1 => value,
            Value::Int(number) if number < 0 => Value::Long(i64::from(number)),
            Value::Long(number) if number < 0 => Value::Long(number),
            Value::Int(number) => Value::Long(i64::from(number).saturating_mul(scale)),
            Value::Long(number) => Value::Long(number.saturating_mul(scale)),
            value => value,
        }
    }
}

/// The text that parses to it again.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Long(value) => value.fmt(f),
            // With a decimal point, as Kafka shows it.
            Value::Double(value) => write!(f, "{value:?}"),
            Value::Text(value) => f.write_str(value),
            Value::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// The value in the type its setting is known to have. Another type is a bug of the caller.
impl Value {
    pub(super) fn into_bool(self) -> bool {
        match self {
            Value::Bool(value) => value,
            other => panic!("{other:?} is no truth value"),
        }
    }

    pub(super) fn into_int(self) -> i32 {
        match self {
            Value::Int(value) => value,
            other => panic!("{other:?} is no 32-bit number"),
        }
    }

    pub(super) fn into_unsigned(self) -> u32 {
        u32::try_from(self.into_int()).expect("the setting's range starts at zero or above")
    }

    pub(super) fn into_long(self) -> i64 {
        match self {
            Value::Long(value) => value,
            Value::Int(value) => i64::from(value),
            other => panic!("{other:?} is no 64-bit number"),
        }
    }

    pub(super) fn into_double(self) -> f64 {
        match self {
            Value::Double(value) => value,
            other => panic!("{other:?} is no decimal number"),
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Value::Text(value) => value,
            other => panic!("{other:?} is no text"),
        }
    }

    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            Value::List(value) => value,
            other => panic!("{other:?} is no list"),
        }
    }
}
