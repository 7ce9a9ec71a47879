//! What the facades promise, on simulated cores.

mod disk;
mod network;
mod tasks;
