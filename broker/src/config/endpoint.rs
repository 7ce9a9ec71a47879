//! Addresses to listen on and to tell clients.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use super::definition::split_list;

/// The name of a listener that is given without one.
const DEFAULT_NAME: &str = "PLAINTEXT";
/// Listener names that promise a protection there is none of.
const UNSUPPORTED_NAMES: [&str; 3] = ["SSL", "SASL_SSL", "SASL_PLAINTEXT"];

/// A listener: its name and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, such as `PLAINTEXT`.
    pub name: String,
    /// A host name or an address; IPv6 without brackets.
    pub host: String,
    /// The port; 0 to listen on a free one.
    pub port: u16,
}

/// The text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not of the form.
    #[error("`{0}` is not HOST:PORT or NAME://HOST:PORT")]
    Form(String),
    /// The name asks for TLS or SASL.
    #[error("listener {0} would need TLS or SASL, which is not there yet; use PLAINTEXT")]
    Unsupported(String),
    /// Two listeners of one name.
    #[error("listener name {0} is given twice")]
    Duplicate(String),
    /// No listener at all.
    #[error("at least one HOST:PORT is needed")]
    Empty,
}

impl Endpoint {
    /// Whether it stands for every address of the machine, which nobody can connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// The address to bind. Asks the system's resolver, so call it before there is anybody to wait.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let none = || io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host));
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(none)
    }

    /// `HOST:PORT`.
    pub fn host_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.host_port())
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, InvalidEndpoint> {
        let invalid = || InvalidEndpoint::Form(text.to_owned());
        let (name, address) = text.split_once("://").unwrap_or((DEFAULT_NAME, text));
        let name = name.to_ascii_uppercase();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
            return Err(invalid());
        }
        if UNSUPPORTED_NAMES.contains(&name.as_str()) {
            return Err(InvalidEndpoint::Unsupported(name));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            // Kafka reads `NAME://:PORT` as every address.
            None if host.is_empty() && name_was_given(text) => "0.0.0.0",
            None if is_host(host) => host,
            _ => return Err(invalid()),
        };
        Ok(Endpoint { name, host: host.to_owned(), port })
    }
}

fn name_was_given(text: &str) -> bool {
    text.contains("://")
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// One endpoint or more, separated by commas.
pub(super) fn parse_list(text: &str) -> Result<Vec<Endpoint>, InvalidEndpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in split_list(text) {
        let endpoint: Endpoint = item.parse()?;
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err(InvalidEndpoint::Duplicate(endpoint.name));
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() { Err(InvalidEndpoint::Empty) } else { Ok(endpoints) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_with_and_without_names_and_in_ipv6() {
        let table = [
            ("127.0.0.1:9092", "PLAINTEXT://127.0.0.1:9092"),
            ("localhost:0", "PLAINTEXT://localhost:0"),
            ("plaintext://broker-1.example:19092", "PLAINTEXT://broker-1.example:19092"),
            ("INTERNAL://[::1]:9092", "INTERNAL://[::1]:9092"),
            ("PLAINTEXT://:9092", "PLAINTEXT://0.0.0.0:9092"),
        ];
        for (text, expected) in table {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(endpoint.to_string(), expected);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in
            ["", "9092", "localhost", ":9092", "localhost:70000", "a b:1", "://h:1", "::1:9092", "[x]:1"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        assert!(matches!("SSL://h:1".parse::<Endpoint>(), Err(InvalidEndpoint::Unsupported(_))));
        assert_eq!(parse_list("a:1,b:2"), Err(InvalidEndpoint::Duplicate("PLAINTEXT".to_owned())));
        assert_eq!(parse_list(" , "), Err(InvalidEndpoint::Empty));
        assert_eq!(parse_list("A://a:1, B://b:2").map(|list| list.len()), Ok(2));
    }

    #[test]
    fn the_address_of_every_interface_is_told_apart() {
        for (text, unspecified) in
            [("0.0.0.0:1", true), ("[::]:1", true), ("127.0.0.1:1", false), ("localhost:1", false)]
        {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.is_unspecified()), Ok(unspecified));
        }
    }
}
