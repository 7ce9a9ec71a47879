//! Counters: plain cells on each core, added up when somebody looks.
//!
//! | file | what is in it |
//! |---|---|
//! | `core.rs` | [`CoreMetrics`], which a core counts into, and [`CoreSnapshot`], which it hands out |
//! | `exposition.rs` | the names and the text that Prometheus reads |
//! | `process.rs` | what the kernel knows about this process |

mod core;
mod exposition;
mod process;

pub use core::{CoreMetrics, CoreSnapshot, LogDirFigures};
pub use exposition::render;
pub use process::ProcessFigures;
