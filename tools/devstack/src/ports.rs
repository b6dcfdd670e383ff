//! Ports for servers.
//!
//! Chosen ports lie below 32768, where Linux begins to take ports for outgoing connections, so that no connection
//! occupies the port of a server that restarts.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::{Error, process::wait_until, random};

const FIRST: u16 = 20_000;
/// A server may need the two ports after its own.
const WIDTH: u16 = 3;
const CHOICES: u16 = 4_000;
const ATTEMPTS: usize = 200;
const LAST_ARGUMENT: u16 = 65_533;

/// Returns whether a process on this machine listens on the port.
#[must_use]
pub fn is_open(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Parses a port that a server may use together with the two ports after it.
///
/// # Errors
/// If the text is no number from 1 to 65533.
pub fn parse(text: &str) -> Result<u16, Error> {
    let port = text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    port.filter(|port| (1..=LAST_ARGUMENT).contains(port)).ok_or_else(|| Error::InvalidPort(text.to_owned()))
}

/// Returns a random port that is free, as are the two ports after it.
///
/// # Errors
/// If none of 200 candidates is free.
pub fn choose() -> Result<u16, Error> {
    for _ in 0..ATTEMPTS {
        let port = FIRST + random::below(CHOICES)? * WIDTH;
        if !(port..port + WIDTH).any(is_open) {
            return Ok(port);
        }
    }
    Err(Error::NoFreePort)
}

/// Returns the port that the server in `directory` had at its last start if it is free, else another one.
pub(crate) fn reuse_or_choose(directory: &Path) -> Result<u16, Error> {
    match last(directory) {
        Some(port) if !is_open(port) && !is_open(port + 1) => Ok(port),
        _ => choose(),
    }
}

/// Returns the port that the server in `directory` had at its last start.
pub(crate) fn last(directory: &Path) -> Option<u16> {
    parse(fs::read_to_string(directory.join("port")).ok()?.trim()).ok()
}

/// Waits up to three seconds for a port to be free: a killed process closes its ports a moment later.
pub(crate) fn require_closed(port: u16, server: &str) -> Result<(), Error> {
    if wait_until(Duration::from_secs(3), || !is_open(port))? {
        Ok(())
    } else {
        Err(Error::PortInUse { port, server: server.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener};

    use super::{choose, is_open, parse, require_closed, reuse_or_choose};
    use crate::Error;

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn chosen_port_is_free_and_below_the_outgoing_range() {
        for _ in 0..50 {
            let port = choose().unwrap();
            assert!((20_000..=32_765).contains(&port), "{port}");
            assert!((port..port + 3).all(|port| !is_open(port)), "{port}");
        }
    }

    #[test]
    fn last_port_is_reused_unless_taken() {
        let directory = tempfile::tempdir().unwrap();
        let free = choose().unwrap();
        fs::write(directory.path().join("port"), format!("{free}\n")).unwrap();
        assert_eq!(reuse_or_choose(directory.path()).unwrap(), free);
        let (_listener, taken) = listener();
        fs::write(directory.path().join("port"), format!("{taken}\n")).unwrap();
        assert_ne!(reuse_or_choose(directory.path()).unwrap(), taken);
    }

    #[test]
    fn port_is_a_number_from_1_to_65533() {
        assert_eq!(parse("25432").unwrap(), 25_432);
        for text in ["", "0", "65534", "99999", "+1", "-1", "1x", " 1"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn taken_port_is_an_error_that_names_the_server() {
        let (_listener, port) = listener();
        let error = require_closed(port, "Kafka in /tmp/kafka").unwrap_err();
        assert!(matches!(&error, Error::PortInUse { server, .. } if server == "Kafka in /tmp/kafka"), "{error}");
    }
}
