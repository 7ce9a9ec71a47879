//! The service manager that has started this process, if it listens: systemd's protocol of `sd_notify(3)`.
//!
//! A datagram of lines `NAME=VALUE` tells it that the process is ready, stops, or lives. A core sends it without ever
//! waiting for it: what finds a full queue is lost, so whatever has to arrive is said again.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A way to tell the service manager how this process is.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    addr: SocketAddr,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names; none where nobody wants to be told.
    ///
    /// # Errors
    /// It names no address of a socket, or the system gives none.
    pub fn from_environment() -> io::Result<Option<ServiceManager>> {
        let text = |name: &str| std::env::var(name).ok();
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let watchdog = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id());
        ServiceManager::at(&name, watchdog).map(Some)
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<ServiceManager> {
        let addr = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(ServiceManager { socket, addr, watchdog })
    }

    /// Within what time it wants to hear `WATCHDOG=1` again, lest it takes the process for stuck; none: never.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it something: lines `NAME=VALUE`.
    ///
    /// # Errors
    /// It is not there, or does not keep up.
    pub fn tell(&self, lines: &str) -> io::Result<()> {
        self.socket.send_to_addr(lines.as_bytes(), &self.addr).map(drop)
    }
}

/// What `WATCHDOG_USEC` asks of the process `pid`; it may have been meant for another one.
fn watchdog(usec: Option<String>, for_pid: Option<String>, pid: u32) -> Option<Duration> {
    let is_meant = for_pid.is_none_or(|text| text == pid.to_string());
    let usec = usec?.parse::<u64>().ok().filter(|usec| *usec > 0 && is_meant)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn what_is_told_arrives_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let named = UnixDatagram::bind(&path).expect("bound");
        let name = format!("heizer-test-{}", std::process::id());
        let abstract_addr = SocketAddr::from_abstract_name(&name).expect("an address");
        let abstracted = UnixDatagram::bind_addr(&abstract_addr).expect("bound");
        for (name, receiver) in
            [(path.into_os_string(), named), (OsString::from(format!("@{name}")), abstracted)]
        {
            let manager = ServiceManager::at(&name, None).expect("an address");
            manager.tell("READY=1\nSTATUS=here").expect("sent");
            let mut bytes = [0; 64];
            let length = receiver.recv(&mut bytes).expect("received");
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=here");
        }
    }

    #[test]
    fn a_manager_that_does_not_keep_up_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).expect("bound");
        let manager = ServiceManager::at(path.as_os_str(), None).expect("an address");
        let refused = (0..100_000).find_map(|_| manager.tell("WATCHDOG=1").err());
        assert_eq!(refused.expect("a queue has an end").kind(), io::ErrorKind::WouldBlock);
        drop(receiver);
        assert!(manager.tell("WATCHDOG=1").is_err(), "nobody is there any more");
    }

    #[test]
    fn the_watchdog_is_meant_for_one_process() {
        let text = |text: &str| Some(text.to_owned());
        let found = |usec, for_pid| watchdog(usec, for_pid, 7).map(|time| time.as_micros());
        assert_eq!(found(text("3000000"), None), Some(3_000_000));
        assert_eq!(found(text("3000000"), text("7")), Some(3_000_000));
        assert_eq!(found(text("3000000"), text("8")), None);
        assert_eq!(found(text("0"), None), None);
        assert_eq!(found(text("soon"), None), None);
        assert_eq!(found(None, text("7")), None);
    }
}
