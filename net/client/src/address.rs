//! From `host:port` to an address to connect to.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::ClientError;

/// Numeric addresses and `localhost` need no resolver. Any other name is asked of the system's, which blocks the
/// core for that long: for programs, not for a broker's data path.
pub(crate) fn resolve(addr: &str) -> Result<SocketAddr, ClientError> {
    if let Ok(numeric) = addr.parse() {
        return Ok(numeric);
    }
    let failed = |reason: String| ClientError::Address { addr: addr.to_owned(), reason };
    if let Some(port) = addr.strip_prefix("localhost:") {
        let port: u16 =
            port.parse().map_err(|_| failed("the port is not a number up to 65535".to_owned()))?;
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let resolved: Vec<SocketAddr> =
        addr.to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    resolved
        .iter()
        .find(|addr| addr.is_ipv4())
        .or(resolved.first())
        .copied()
        .ok_or_else(|| failed("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_addresses_and_localhost_need_no_resolver() {
        assert_eq!(resolve("10.1.2.3:9092").unwrap().to_string(), "10.1.2.3:9092");
        assert_eq!(resolve("[::1]:9092").unwrap().to_string(), "[::1]:9092");
        assert_eq!(resolve("localhost:9092").unwrap().to_string(), "127.0.0.1:9092");
        assert!(resolve("localhost:99999").is_err());
        assert!(resolve("nonsense").is_err());
    }
}
