//! The Heizer broker: everything between the wire and the log.
//!
//! | room | what is in it |
//! |---|---|
//! | [`serve`] | the broker as a whole: how its cores come up, serve and go down |
//! | [`shard`] | one core's room: its partitions, raft groups, coordinators, waiting fetches |
//! | [`api`] | Kafka's APIs, a file for each key |
//! | [`partition`], [`fetch_session`], [`fetch_budget`] | a partition on its core; what a fetching client follows, and the memory that answers hold |
//! | [`coordinator`] | coordinators: state machines over a log, without I/O |
//! | [`metadata`] | the state machines behind raft, and the image that requests are answered from |
//! | [`config`] | the registry of settings |
//! | [`data_dir`] | what lies beside the logs |
//! | [`front`] | the listeners |
//! | [`supervision`] | what the service manager is told |
//! | [`http`], [`metrics`] | the admin listener's protocol and what it shows |
//! | [`admin`], [`logging`] | the command line, and what it logs |
//! | [`check`] | a look at the host, for the command line |

pub mod admin;
pub mod api;
pub mod check;
pub mod config;
pub mod coordinator;
pub mod data_dir;
pub mod error;
pub mod fetch_budget;
pub mod fetch_session;
pub mod front;
pub mod http;
pub mod logging;
pub mod metadata;
pub mod metrics;
pub mod partition;
pub mod serve;
pub mod shard;
pub mod supervision;
