//! A broker that a test may kill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use epoch::testkit::free_ports;

/// A broker that belongs to one test.
pub(crate) struct PrivateBroker {
    dev: PathBuf,
    directory: PathBuf,
    port: u16,
    tls: Option<PathBuf>,
}

impl PrivateBroker {
    pub(crate) fn new() -> Self {
        let dev = std::env::var_os("CATACLOUD_DEV")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev"), PathBuf::from);
        let directory = std::env::temp_dir().join(format!("epoch-rabbitmq-{}", uuid::Uuid::now_v7()));
        Self { dev, directory, port: free_ports(), tls: None }
    }

    /// Returns a broker that accepts only TLS, with `certificate.pem` and `key.pem` of this directory.
    pub(crate) fn with_tls(tls: &Path) -> Self {
        let mut broker = Self::new();
        broker.tls = Some(tls.to_owned());
        broker
    }

    fn dev(&self, verb: &str, port: Option<u16>) -> String {
        let mut command = Command::new(&self.dev);
        command.envs(self.tls.iter().map(|tls| ("CATACLOUD_DEV_RABBITMQ_TLS", tls)));
        command.args(["rabbitmq", verb]).arg(&self.directory).args(port.map(|port| port.to_string()));
        let output = command.output().unwrap();
        assert!(output.status.success(), "dev rabbitmq {verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn start(&self) -> String {
        self.dev("start", Some(self.port))
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
        self.dev("kill", None);
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.dev("remove", None);
    }
}
