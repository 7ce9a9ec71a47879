//! What only system calls tell of the machine, for `heizer check`. Nothing here changes anything, but that a look at an
//! address takes it for a moment.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::ring;

/// Connections that the kernel is asked to hold until a core accepts them.
pub const LISTEN_BACKLOG: u32 = ring::BACKLOG.unsigned_abs();

/// Room in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that anybody may still take.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// The room in the file system that `path` lies in.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = ring::path::statvfs(path)?;
    Ok(Space {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Whether files in a directory can be read and written past the page cache, tried on one without a name.
///
/// # Errors
/// This user cannot write there, or the file system has no files without names.
pub fn has_direct_io(directory: &Path) -> io::Result<bool> {
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(directory);
    open(libc::O_TMPFILE)?;
    match open(libc::O_TMPFILE | libc::O_DIRECT) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel tells what is in the page cache, and this process may ask: without, a backlog is read through
/// memory of the broker's own.
pub fn has_cachestat() -> bool {
    ring::has_cachestat()
}

/// Fails with [`io::ErrorKind::AddrInUse`] where somebody listens on `addr`, and with another kind where nobody can.
pub fn check_address(addr: SocketAddr) -> io::Result<()> {
    ring::Listener::check_free(addr)
}

/// Whether somebody, such as an NTP client, keeps the clock to the world's time.
pub fn is_clock_synchronised() -> io::Result<bool> {
    // SAFETY: all zeros are a valid timex, and one that asks for no change.
    let mut found: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: reads and fills the structure it is given.
    let state = unsafe { libc::adjtimex(&raw mut found) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && found.status & libc::STA_UNSYNC == 0)
}

/// The network interfaces' names and addresses, one of each a row.
pub fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: puts a list of the kernel's making into `first` where it returns zero.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = first;
    while !at.is_null() {
        // SAFETY: every entry of the list is valid until it is freed below, and so is what it points to.
        let (entry, name) = unsafe { (&*at, CStr::from_ptr((*at).ifa_name)) };
        // SAFETY: as above.
        if let Some(ip) = unsafe { ip_of(entry.ifa_addr) } {
            found.push((name.to_string_lossy().into_owned(), ip));
        }
        at = entry.ifa_next;
    }
    // SAFETY: the list is the one that was made above, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// # Safety
/// `addr` must be null or point to an address of the family that it says.
unsafe fn ip_of(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: the caller says that the pointer is good for its family's structure.
    unsafe {
        match i32::from(addr.cast::<libc::sa_family_t>().read_unaligned()) {
            libc::AF_INET => {
                let found = addr.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let found = addr.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(found.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn this_machine_answers() {
        let directory = tempfile::tempdir().expect("a directory");
        let space = space(directory.path()).expect("a file system");
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
        has_direct_io(directory.path()).expect("a directory that can be written");
        assert!(has_direct_io(&directory.path().join("missing")).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0, "nothing is left behind");
        is_clock_synchronised().expect("a clock");
    }

    #[test]
    fn the_loopback_is_among_the_interfaces() {
        let found = interface_addresses().expect("a list");
        assert!(found.contains(&("lo".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))), "{found:?}");
    }

    #[test]
    fn an_address_is_taken_while_somebody_listens() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any_port: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        listener.bind(&any_port.into()).and_then(|()| listener.listen(1)).expect("bound");
        let addr = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        assert_eq!(check_address(addr).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        check_address(addr).expect("free");
        let elsewhere = "192.0.2.1:9092".parse().expect("an address");
        assert_eq!(check_address(elsewhere).expect_err("another's").kind(), io::ErrorKind::AddrNotAvailable);
    }
}
