//! Ports for servers that tests start.
//!
//! A free port may be taken before a server listens on it, or while the server restarts: the kernel assigns ports of
//! its own range (from 32768 on Linux) to outgoing connections, of which tests have many. The ports of this module are
//! below that range, and no two calls in a process return the same one.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000;
const TRIPLES: u16 = 4_000;

static CALLS: AtomicU16 = AtomicU16::new(0);

/// Returns the first of three adjacent free ports.
#[must_use]
pub fn free_ports() -> u16 {
    // Start at an offset that depends on the process id, so that concurrent processes rarely compete for a port.
    let first = std::process::id().wrapping_mul(7_919) % u32::from(TRIPLES);
    let first = u16::try_from(first).unwrap_or_default();
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let place = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % TRIPLES;
        let port = FIRST + place * 3;
        if (port..port + 3).all(is_free) {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FIRST, TRIPLES, free_ports};

    #[test]
    fn free_ports_are_distinct_and_below_the_ephemeral_range() {
        let all: BTreeSet<u16> = (0..50).map(|_| free_ports()).flat_map(|port| port..port + 3).collect();
        assert_eq!(all.len(), 150);
        assert!(all.iter().all(|port| (FIRST..FIRST + 3 * TRIPLES).contains(port)));
    }
}
