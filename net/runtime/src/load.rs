//! How busy a core is, and how long it has kept everybody on it waiting.

use std::cell::Cell;
use std::time::Duration;

use crate::core::{self, Backend};
use crate::ring;
use crate::time::Instant;

/// A pass through all ready tasks that takes so long has held up whatever else the core serves.
pub const STALL_MIN: Duration = Duration::from_millis(100);

/// What a core has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreLoad {
    /// Time in which it neither slept nor looked for work in vain.
    pub busy: Duration,
    /// CPU time of its thread. Less than `busy` where others had the CPU, more where the kernel worked for it while it
    /// was about to sleep.
    pub cpu: Duration,
    /// Passes through all ready tasks that took [`STALL_MIN`] or longer.
    pub stalls: u64,
    /// What these took together.
    pub stalled: Duration,
}

/// The load of the current core so far.
pub fn load() -> CoreLoad {
    let core = core::current();
    let load = core.load.read();
    match &core.backend {
        Backend::Ring(_) => CoreLoad { cpu: ring::thread_cpu_time(), ..load },
        Backend::Sim(_) => CoreLoad { cpu: load.busy, ..load },
    }
}

/// The counters behind [`load`]; whatever drives the core counts.
#[derive(Debug, Default)]
pub(crate) struct Load {
    busy_ns: Cell<u64>,
    stalls: Cell<u64>,
    stalled_ns: Cell<u64>,
    /// Time is accounted for up to here.
    until: Cell<Instant>,
}

impl Load {
    /// The time up to `now` was spent at work, in one pass.
    pub(crate) fn worked_until(&self, now: Instant) {
        let worked = now.saturating_duration_since(self.until.replace(now));
        self.worked(worked);
    }

    /// The time up to `now` was spent asleep, or looking for work in vain.
    pub(crate) fn idled_until(&self, now: Instant) {
        self.until.set(now);
    }

    /// A pass has taken so long.
    pub(crate) fn worked(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.set(self.busy_ns.get().saturating_add(took_ns));
        if took >= STALL_MIN {
            self.stalls.set(self.stalls.get() + 1);
            self.stalled_ns.set(self.stalled_ns.get().saturating_add(took_ns));
        }
    }

    fn read(&self) -> CoreLoad {
        CoreLoad {
            busy: Duration::from_nanos(self.busy_ns.get()),
            cpu: Duration::ZERO,
            stalls: self.stalls.get(),
            stalled: Duration::from_nanos(self.stalled_ns.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_at_work_counts_and_long_passes_are_told_apart() {
        let load = Load::default();
        let at = Instant::from_millis;
        load.idled_until(at(1_000));
        load.worked_until(at(1_003));
        load.idled_until(at(2_000));
        load.worked_until(at(2_099));
        assert_eq!(load.read(), CoreLoad { busy: Duration::from_millis(102), ..CoreLoad::default() });
        load.worked_until(at(2_199));
        load.worked_until(at(2_449));
        let expected = CoreLoad {
            busy: Duration::from_millis(452),
            cpu: Duration::ZERO,
            stalls: 2,
            stalled: Duration::from_millis(350),
        };
        assert_eq!(load.read(), expected);
    }
}
