//! Trying again: growing pauses until a deadline.

use std::time::Duration;

use heizer_runtime::random;
use heizer_runtime::time::{Instant, now, sleep};

use crate::error::ClientError;

/// Pauses and deadline of one operation.
#[derive(Debug)]
pub(crate) struct Retry {
    started: Instant,
    within: Duration,
    pause: Duration,
    pause_max: Duration,
}

impl Retry {
    pub(crate) fn new(within: Duration, pause: Duration, pause_max: Duration) -> Retry {
        Retry { started: now(), within, pause, pause_max }
    }

    /// After a failure: pauses if it may pass and there is time left, else gives the error back.
    pub(crate) async fn after(&mut self, what: &str, error: ClientError) -> Result<(), ClientError> {
        if error.retriable() { self.again(what, error).await } else { Err(error) }
    }

    /// As [`Retry::after`], for an error of which the caller knows what to change.
    pub(crate) async fn again(&mut self, what: &str, error: ClientError) -> Result<(), ClientError> {
        let pause = jittered(self.pause, random::u64());
        let passed = now().saturating_duration_since(self.started);
        if passed + pause >= self.within {
            return Err(ClientError::Deadline {
                what: what.to_owned(),
                after_ms: passed.as_millis() as u64,
                last: Box::new(error),
            });
        }
        tracing::debug!(what, %error, "trying again");
        sleep(pause).await;
        self.pause = (self.pause * 2).min(self.pause_max);
        Ok(())
    }
}

/// The pause, give or take a fifth, so that clients that failed together don't return together.
fn jittered(pause: Duration, random: u64) -> Duration {
    let percent = 80 + (random % 41) as u32;
    pause * percent / 100
}
