//! The cleaner's share of its core, and of the disk.

use std::time::Duration;

use heizer_runtime::task::Pacer;
use heizer_runtime::time;

use crate::rate::{Rate, Spending};

/// Longest sleep at once, so that a cleaner that is to stop notices.
const NAP_MAX: Duration = Duration::from_millis(50);

/// Keeps one core's cleaner to a share of the core and to a number of bytes per second, read and written together
/// (`log.cleaner.io.max.bytes.per.second`).
pub struct Pace {
    pacer: Pacer,
    spending: Spending,
}

impl Pace {
    /// `share_percent` of the core (1 to 100), and a rate, which may be changed while a round is under way.
    pub fn new(share_percent: u32, rate: impl Into<Rate>) -> Self {
        Self { pacer: Pacer::new(share_percent), spending: Spending::new(rate.into()) }
    }

    /// Takes note that a round starts: what was not used in between cannot be made up for.
    pub(crate) fn start(&mut self) {
        self.spending.start();
    }

    /// Counts bytes read or written.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.spending.spend(bytes);
    }

    /// Gives way to others, and waits for a while if the bytes so far came too fast. `false`: still too fast, to be
    /// called again once the caller has seen whether it is to go on.
    pub(crate) async fn rest(&mut self) -> bool {
        self.pacer.checkpoint().await;
        let ahead = self.spending.ahead();
        if ahead > Duration::from_millis(1) {
            time::sleep(ahead.min(NAP_MAX)).await;
        }
        ahead <= NAP_MAX
    }
}
