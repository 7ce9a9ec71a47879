//! Time: a monotonic clock for deadlines, the wall clock for records, sleeping and timeouts.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, select};

use crate::core::{self, Backend, Core, TimerId};

/// A point on the core's monotonic clock: nanoseconds since the runtime started. All cores of a process (or of a
/// simulated node) share the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start of the runtime.
    pub const ZERO: Instant = Instant(0);

    /// The instant `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// The instant `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Milliseconds since the start, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this; zero when it is later.
    pub const fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    now_on(&core::current())
}

/// Now on the clock of `core`.
pub(crate) fn now_on(core: &Core) -> Instant {
    match &core.backend {
        Backend::Ring(driver) => driver.now(),
        Backend::Sim(driver) => driver.now(),
    }
}

/// Milliseconds since the Unix epoch, for record timestamps and log messages; never for deadlines.
pub fn wall_clock_ms() -> i64 {
    match &core::current().backend {
        Backend::Ring(driver) => driver.wall_clock_ms(),
        Backend::Sim(driver) => driver.wall_clock_ms(),
    }
}

/// Resolves after `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Resolves at `deadline`; at once when it has passed.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// A pending [`sleep`]; dropping it cancels the timer.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    timer: Option<TimerId>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let core = core::current();
        if now_on(&core) >= self.deadline {
            self.cancel(&core);
            return Poll::Ready(());
        }
        let mut timers = core.timers.borrow_mut();
        let kept = self.timer.is_some_and(|id| timers.update(self.deadline, id, cx.waker()));
        if !kept {
            self.timer = Some(timers.insert(self.deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Sleep {
    fn cancel(&mut self, core: &Core) {
        if let Some(id) = self.timer.take() {
            core.timers.borrow_mut().remove(self.deadline, id);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.timer.is_some()
            && let Some(core) = core::try_current()
        {
            self.cancel(&core);
        }
    }
}

/// The time given to [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

/// Runs `future` for at most `duration`; what is left of it is dropped then.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    match select(pin!(future), sleep(duration)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(_) => Err(Elapsed),
    }
}
