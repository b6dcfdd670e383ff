//! Brokers that a test may harm.

use std::path::{Path, PathBuf};

use devstack::servers::{RabbitMq, Server};
use epoch::testkit::free_ports;

/// A broker of this test's own, which it may kill.
pub(crate) struct PrivateBroker {
    directory: PathBuf,
    port: u16,
    tls: Option<PathBuf>,
}

impl PrivateBroker {
    pub(crate) fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("epoch-rabbitmq-{}", uuid::Uuid::now_v7()));
        Self { directory, port: free_ports(), tls: None }
    }

    /// One that speaks TLS only, with `certificate.pem` and `key.pem` of this directory.
    pub(crate) fn with_tls(tls: &Path) -> Self {
        let mut broker = Self::new();
        broker.tls = Some(tls.to_owned());
        broker
    }

    fn server(&self) -> RabbitMq {
        let server = RabbitMq::new(&self.directory).unwrap();
        match &self.tls {
            Some(certificates) => server.with_tls(certificates),
            None => server,
        }
    }

    pub(crate) fn start(&self) -> String {
        self.server().start(self.port).unwrap()
    }

    /// Whether it has written down that it has streams. In the first half second after the very first one it hasn't, and RabbitMQ 3.10
    /// doesn't find them again when it is killed then.
    pub(crate) fn remembers_streams(&self) -> bool {
        let path = "data/catacloud@localhost/coordination/catacloud@localhost/names.dets";
        let names = std::fs::read(self.directory.join(path)).unwrap_or_default();
        let name = b"rabbit_stream_coordinator";
        names.windows(name.len()).any(|window| window == name)
    }

    /// As in a crash.
    pub(crate) fn kill(&self) {
        self.server().kill().unwrap();
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.server().remove().unwrap();
    }
}
