//! How many connections there are, over all cores.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of the whole process, counted against `max.connections` and `max.connections.per.ip`.
///
/// The one thing here that cores share: both limits are the broker's, and the kernel spreads a peer's connections
/// over the cores as it likes. It is touched when a connection opens or closes, never per request.
#[derive(Debug)]
pub struct Census {
    connections_max: AtomicUsize,
    per_ip_max: AtomicUsize,
    total: AtomicUsize,
    by_ip: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `max.connections` is reached.
    Total,
    /// `max.connections.per.ip` is reached for this address.
    PerIp,
}

impl Census {
    /// A census with its limits; `usize::MAX` stands for none.
    pub fn new(connections_max: usize, per_ip_max: usize) -> Arc<Census> {
        Arc::new(Census {
            connections_max: AtomicUsize::new(connections_max),
            per_ip_max: AtomicUsize::new(per_ip_max),
            total: AtomicUsize::new(0),
            by_ip: Mutex::new(BTreeMap::new()),
        })
    }

    /// Other limits from now on. Connections that were admitted stay, though they be more.
    pub fn set_limits(&self, connections_max: usize, per_ip_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.per_ip_max.store(per_ip_max, Ordering::Relaxed);
    }

    /// Connections admitted and not yet gone.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a connection in, until the admission is dropped.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admission, Refused> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.connections_max.load(Ordering::Relaxed) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Total);
        }
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by_ip.get(&ip).copied().unwrap_or(0);
        if known >= self.per_ip_max.load(Ordering::Relaxed) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::PerIp);
        }
        by_ip.insert(ip, known + 1);
        Ok(Admission { census: Arc::clone(self), ip })
    }

    fn leave(&self, ip: IpAddr) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
            }
        }
    }
}

/// One connection's place in the census; dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    census: Arc<Census>,
    ip: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.census.leave(self.ip);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn the_total_and_the_count_per_address_hold_and_are_given_back() {
        let census = Census::new(3, 2);
        let first = census.admit(ip(1)).unwrap();
        let _second = census.admit(ip(1)).unwrap();
        assert_eq!(census.admit(ip(1)).unwrap_err(), Refused::PerIp);
        let _third = census.admit(ip(2)).unwrap();
        assert_eq!(census.admit(ip(3)).unwrap_err(), Refused::Total);
        assert_eq!(census.total(), 3);
        drop(first);
        let _again = census.admit(ip(1)).unwrap();
        assert_eq!(census.total(), 3);
    }

    #[test]
    fn limits_that_change_count_those_who_came_before_and_send_nobody_away() {
        let census = Census::new(usize::MAX, usize::MAX);
        let admitted: Vec<_> = (0..3).map(|_| census.admit(ip(1)).unwrap()).collect();
        census.set_limits(4, 2);
        assert_eq!(census.total(), 3);
        assert_eq!(census.admit(ip(1)).unwrap_err(), Refused::PerIp);
        let _other = census.admit(ip(2)).unwrap();
        assert_eq!(census.admit(ip(3)).unwrap_err(), Refused::Total);
        drop(admitted);
        let _again = [census.admit(ip(1)).unwrap(), census.admit(ip(1)).unwrap()];
        assert_eq!(census.admit(ip(1)).unwrap_err(), Refused::PerIp);
        census.set_limits(4, 3);
        let _third = census.admit(ip(1)).unwrap();
        assert_eq!(census.admit(ip(4)).unwrap_err(), Refused::Total);
    }

    #[test]
    fn addresses_that_left_leave_nothing_behind() {
        let census = Census::new(usize::MAX, 5);
        for last in 0..200 {
            drop(census.admit(ip(last)).unwrap());
        }
        assert_eq!(census.total(), 0);
        assert!(census.by_ip.lock().unwrap().is_empty());
    }
}
