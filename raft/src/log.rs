//! raft-rs speaks slog; this drain hands it to tracing, one level quieter, because what raft-rs calls
//! information is per-election detail times 64 groups here.

use slog::{Drain, KV, Level, Logger, OwnedKVList, Record, o};
use std::fmt::Write;

/// A logger for one group's raft-rs instance.
pub(crate) fn logger(group: u32) -> Logger {
    Logger::root(ToTracing, o!("group" => group))
}

struct ToTracing;

struct Pairs(String);

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, val: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={val}").map_err(|_| slog::Error::Other)
    }
}

fn text(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut pairs = Pairs(record.msg().to_string());
    // Formatting into a String can't fail; a pair that can't be shown is left out.
    let _ = values.serialize(record, &mut pairs);
    let _ = record.kv().serialize(record, &mut pairs);
    pairs.0
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", text(record, values)),
            Level::Warning if tracing::enabled!(target: "raft", tracing::Level::INFO) => {
                tracing::info!(target: "raft", "{}", text(record, values))
            }
            Level::Info if tracing::enabled!(target: "raft", tracing::Level::DEBUG) => {
                tracing::debug!(target: "raft", "{}", text(record, values))
            }
            Level::Debug if tracing::enabled!(target: "raft", tracing::Level::TRACE) => {
                tracing::trace!(target: "raft", "{}", text(record, values))
            }
            _ => {}
        }
        Ok(())
    }
}
