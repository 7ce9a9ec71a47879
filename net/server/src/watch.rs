//! What the sweeper looks at: one small record per connection, so that no connection needs a timer.

use std::cell::Cell;
use std::time::Duration;

use heizer_runtime::sync::Event;
use heizer_runtime::time::Instant;

use crate::config::Limits;
use crate::metrics::CloseReason;

/// How far a connection has been told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Read on.
    Run,
    /// Read no more, answer what is in flight, close.
    Finish,
    /// Drop everything now.
    Drop,
}

/// Shared by a connection, which keeps it true, and its server, which judges it and gives orders. One core, one
/// connection's life.
#[derive(Debug)]
pub(crate) struct Watch {
    order: Cell<Order>,
    reason: Cell<Option<CloseReason>>,
    pub(crate) ordered: Event,
    last_active: Cell<Instant>,
    pub(crate) in_flight: Cell<usize>,
    /// Since when we have been waiting for bytes of a started frame, how many it had brought, and how long earlier
    /// waits for the same frame took together.
    frame_wait: Cell<Option<(Instant, usize)>>,
    frame_waited: Cell<Duration>,
    write_since: Cell<Option<Instant>>,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Watch {
        Watch {
            order: Cell::new(Order::Run),
            reason: Cell::new(None),
            ordered: Event::default(),
            last_active: Cell::new(now),
            in_flight: Cell::new(0),
            frame_wait: Cell::new(None),
            frame_waited: Cell::new(Duration::ZERO),
            write_since: Cell::new(None),
        }
    }

    pub(crate) fn order(&self) -> Order {
        self.order.get()
    }

    /// The first reason counts.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.reason.get()
    }

    /// Raises the order (it never falls) and wakes the connection.
    pub(crate) fn give(&self, order: Order, reason: CloseReason) {
        if order <= self.order.get() {
            return;
        }
        self.order.set(order);
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
        self.ordered.notify_all();
    }

    /// We wait for the peer; `started` is what an unfinished frame has brought so far.
    pub(crate) fn read_begins(&self, now: Instant, started: Option<usize>) {
        match started {
            Some(arrived) => self.frame_wait.set(Some((now, arrived))),
            None => self.frame_waited.set(Duration::ZERO),
        }
    }

    pub(crate) fn read_ends(&self, now: Instant) {
        self.last_active.set(now);
        if let Some((since, _)) = self.frame_wait.take() {
            self.frame_waited.set(self.frame_waited.get() + now.saturating_duration_since(since));
        }
    }

    /// A frame is whole: the next one starts with a fresh clock.
    pub(crate) fn frame_ends(&self) {
        self.frame_waited.set(Duration::ZERO);
    }

    pub(crate) fn write_begins(&self, now: Instant) {
        self.write_since.set(Some(now));
    }

    pub(crate) fn write_ends(&self, now: Instant) {
        self.last_active.set(now);
        self.write_since.set(None);
    }

    /// What the limits say about this connection now.
    pub(crate) fn judge(&self, limits: &Limits, now: Instant) -> Option<(Order, CloseReason)> {
        if let Some(since) = self.write_since.get() {
            let stalled = now.saturating_duration_since(since) >= limits.write_stall_max;
            return stalled.then_some((Order::Drop, CloseReason::Stalled));
        }
        if let Some((since, arrived)) = self.frame_wait.get() {
            let waited = self.frame_waited.get() + now.saturating_duration_since(since);
            let allowed = limits.frame_grace
                + Duration::from_micros(arrived as u64 * 1_000_000 / limits.frame_rate_min.max(1));
            return (waited > allowed).then_some((Order::Finish, CloseReason::Slow));
        }
        let idle = self.in_flight.get() == 0
            && now.saturating_duration_since(self.last_active.get()) >= limits.idle_max;
        idle.then_some((Order::Finish, CloseReason::Idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_frame_has_its_grace_and_then_its_rate() {
        let limits =
            Limits { frame_grace: Duration::from_secs(1), frame_rate_min: 1000, ..Limits::default() };
        let watch = Watch::new(at(0));
        watch.read_begins(at(0), Some(10));
        assert_eq!(watch.judge(&limits, at(1000)), None);
        assert_eq!(watch.judge(&limits, at(1011)), Some((Order::Finish, CloseReason::Slow)));
        watch.read_ends(at(900));
        assert_eq!(watch.judge(&limits, at(50_000)), None, "our own waiting doesn't count");
        watch.read_begins(at(50_000), Some(500));
        assert_eq!(watch.judge(&limits, at(50_500)), None);
        assert_eq!(watch.judge(&limits, at(50_700)), Some((Order::Finish, CloseReason::Slow)));
    }

    #[test]
    fn a_connection_with_a_request_in_flight_is_not_idle() {
        let limits = Limits { idle_max: Duration::from_secs(10), ..Limits::default() };
        let watch = Watch::new(at(0));
        watch.in_flight.set(1);
        assert_eq!(watch.judge(&limits, at(60_000)), None);
        watch.in_flight.set(0);
        watch.read_ends(at(60_000));
        assert_eq!(watch.judge(&limits, at(69_999)), None);
        assert_eq!(watch.judge(&limits, at(70_000)), Some((Order::Finish, CloseReason::Idle)));
    }

    #[test]
    fn a_peer_that_takes_no_bytes_is_dropped() {
        let limits = Limits { write_stall_max: Duration::from_secs(5), ..Limits::default() };
        let watch = Watch::new(at(0));
        watch.write_begins(at(0));
        assert_eq!(watch.judge(&limits, at(4_999)), None);
        assert_eq!(watch.judge(&limits, at(5_000)), Some((Order::Drop, CloseReason::Stalled)));
        watch.write_ends(at(5_000));
        assert_eq!(watch.judge(&limits, at(9_000)), None);
    }
}
