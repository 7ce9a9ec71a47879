//! The runtime: what a core is, and the only place that touches the machine.
//!
//! Everything above this crate is written against its facades and runs unchanged on two backends:
//!
//! - the real one, started by [`host::run`]: a pinned glommio executor per core, woken by one io_uring of our own
//!   through which files, sockets, timers and doorbells from other cores come;
//! - the simulator's double, [`sim::Sim`]: any number of nodes and cores in one thread, with virtual time, an order
//!   drawn from a seed, and a disk and a network in memory that can fail.
//!
//! No other crate names glommio, io_uring, the clock, threads or a random source.
//!
//! | module | what it gives |
//! |---|---|
//! | [`task`], [`time`], [`sync`] | tasks of this core, clocks and timers, waiting for each other |
//! | [`cores`] | calls to other cores and each core's room |
//! | [`fs`], [`net`], [`buf`] | files, sockets, and the aligned memory they take |
//! | [`random`], [`collections`] | the core's random source and hash maps seeded from it |
//! | [`helper`] | a thread for what can only block, such as standard input |
//! | [`load`] | how busy the core is |
//! | [`host`], [`preflight`] | starting on the real machine, and what it must offer |
//! | [`machine`], [`service_manager`] | what else the machine tells, and who is told how this process is |
//! | [`sim`] | the double |

#![allow(
    clippy::disallowed_methods,
    reason = "the clock, threads and sleep are wrapped here and nowhere else"
)]

pub mod buf;
pub mod collections;
mod core;
pub mod cores;
pub mod fs;
pub mod helper;
pub mod host;
pub mod load;
pub mod machine;
mod memory;
pub mod net;
pub mod preflight;
pub mod random;
mod ring;
pub mod service_manager;
pub mod sim;
pub mod sync;
pub mod task;
pub mod time;
