//! The whole broker in the simulator: its real cores, on a simulated disk and network, spoken to by a client on
//! another node.
//!
//! A test's name says what must hold, a comment names the clause of the Kafka contract that it proves. Every test ends
//! with [`cluster::Cluster::finish`], which fails it for a panic, an ERROR or a WARN that nobody expected.
//!
//! `HEIZER_SIM_SEEDS=200` runs the crash tests with that many seeds each, `HEIZER_SIM_SEED=17` with that one alone.

mod cluster;
mod kafka;
mod logs;
mod seeds;

mod compaction;
mod crashes;
mod deletion;
mod directories;
mod fetching;
mod full_disk;
mod group_deletion;
mod groups;
mod growth;
mod layout;
mod listing;
mod offsets;
mod producing;
mod protocol;
mod replay;
mod round_trips;
mod settings;
mod topics;
