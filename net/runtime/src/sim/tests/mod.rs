//! What the facades promise, on simulated cores.

mod device;
mod disk;
mod network;
mod tasks;
