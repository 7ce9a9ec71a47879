//! Settings: one typed registry, the broker's settings read from it, and each topic's on top of those.
//!
//! | file | what is in it |
//! |---|---|
//! | `definition.rs` | what a setting is: name, kind, range, default, meaning; how its text becomes a [`Value`] |
//! | `registry.rs` | every setting there is |
//! | `values.rs` | texts over defaults: which value holds and where it came from |
//! | `broker.rs`, `endpoint.rs` | [`BrokerConfig`]: defaults, then the file, then the command line |
//! | `file.rs` | TOML to dotted names |
//! | `topic.rs` | [`TopicConfig`]: the broker's defaults, then the topic's overrides |
//! | `describe.rs` | rows for DescribeConfigs |
//!
//! Names and meanings are Kafka's wherever Kafka has the setting. What it doesn't have is called `heizer.…`.

mod broker;
mod definition;
mod describe;
mod endpoint;
mod file;
mod registry;
mod topic;
mod values;

pub use broker::{BrokerConfig, ConfigError, Override};
pub use definition::{ConfigDef, Kind, Scope, Synonym, UpdateMode, Value};
pub use describe::{ConfigRow, ConfigSource, ConfigSynonym, ConfigType};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use registry::{DEFINITIONS, definition};
pub use topic::{InvalidConfig, TopicConfig};
