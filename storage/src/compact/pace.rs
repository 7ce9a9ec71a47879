//! The cleaner's share of its core, and of the disk.

use std::time::Duration;

use heizer_runtime::task::Pacer;
use heizer_runtime::time::{self, Instant};

/// Longest sleep at once, so that a cleaner that is to stop notices.
const NAP_MAX: Duration = Duration::from_millis(50);

/// Keeps one core's cleaner to a share of the core and to a number of bytes per second, read and written together
/// (`log.cleaner.io.max.bytes.per.second`).
pub struct Pace {
    pacer: Pacer,
    bytes_per_second: f64,
    /// The bytes so far are paid for by this time.
    paid_at: Instant,
}

impl Pace {
    /// `share_percent` of the core (1 to 100); `bytes_per_second` is positive and may be infinite.
    pub fn new(share_percent: u32, bytes_per_second: f64) -> Self {
        assert!(bytes_per_second > 0.0, "a cleaner that may read nothing cleans nothing");
        Self { pacer: Pacer::new(share_percent), bytes_per_second, paid_at: time::now() }
    }

    /// Takes note that a round starts: what was not used in between cannot be made up for.
    pub(crate) fn start(&mut self) {
        self.paid_at = self.paid_at.max(time::now());
    }

    /// Counts bytes read or written.
    pub(crate) fn spend(&mut self, bytes: u64) {
        let seconds = bytes as f64 / self.bytes_per_second;
        // Below the smallest rate that anybody would set, a day.
        self.paid_at += Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(86_400));
    }

    /// Gives way to others, and waits for a while if the bytes so far came too fast. `false`: still too fast, to be
    /// called again once the caller has seen whether it is to go on.
    pub(crate) async fn rest(&mut self) -> bool {
        self.pacer.checkpoint().await;
        let ahead = self.paid_at.saturating_duration_since(time::now());
        if ahead > Duration::from_millis(1) {
            time::sleep(ahead.min(NAP_MAX)).await;
        }
        ahead <= NAP_MAX
    }
}
