//! A broker that a test may kill.

use std::path::{Path, PathBuf};

use devstack::servers::{RabbitMq, Server};
use epoch::testkit::free_ports;

/// A broker that belongs to one test.
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

    /// Returns a broker that accepts only TLS, with `certificate.pem` and `key.pem` of this directory.
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

    /// Returns whether the broker has persisted that it has streams.
    ///
    /// RabbitMQ 3.10 does so half a second after the first stream is declared. If it is killed before, it loses all streams.
    pub(crate) fn has_persisted_streams(&self) -> bool {
        let path = "data/catacloud@localhost/coordination/catacloud@localhost/names.dets";
        let names = std::fs::read(self.directory.join(path)).unwrap_or_default();
        let name = b"rabbit_stream_coordinator";
        names.windows(name.len()).any(|window| window == name)
    }

    /// Kills the broker without a shutdown.
    pub(crate) fn kill(&self) {
        self.server().kill().unwrap();
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.server().remove().unwrap();
    }
}
