//! Settings: one typed registry, the broker's settings read from it, and each topic's on top of those.
//!
//! | file | what is in it |
//! |---|---|
//! | `definition.rs` | what a setting is: name, kind, range, default, meaning; how its text becomes a [`Value`] |
//! | `registry.rs` | every setting there is |
//! | `values.rs` | texts over defaults: which value holds and where it came from |
//! | `broker.rs`, `endpoint.rs` | [`BrokerConfig`]: defaults, then the file, then the command line, then what is set at run time |
//! | `file.rs` | TOML to dotted names |
//! | `topic.rs` | [`TopicConfig`]: the broker's defaults, then the topic's overrides |
//! | `describe.rs` | rows for DescribeConfigs |
//! | `reference.rs` | all settings as a page, `deploy/CONFIGURATION.md` |
//! | `alter.rs` | what a request to alter settings makes of those that are set |
//!
//! Names and meanings are Kafka's wherever Kafka has the setting. What it doesn't have is called `heizer.…`.

mod alter;
mod broker;
mod definition;
mod describe;
mod endpoint;
mod file;
mod reference;
mod registry;
mod topic;
mod values;

pub use alter::{AlterError, Alteration, Brokers, CONFIG_VALUE_BYTES_MAX, ConfigChanges, ConfigOp};
pub use broker::{BrokerConfig, ConfigError, Override};
pub use definition::{ConfigDef, Kind, Scope, Synonym, UpdateMode, Value};
pub use describe::{ConfigRow, ConfigSource, ConfigSynonym, ConfigType};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use reference::reference;
pub use registry::{DEFINITIONS, definition};
pub use topic::{InvalidConfig, TopicConfig};
