//! A broker that a test may kill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use epoch::testkit::free_ports;
use epoch_kafka::KafkaConfig;

use crate::support::MockBroker;

/// A broker that belongs to one test: Apache Kafka, or the mock cluster where Kafka is not installed.
pub(crate) enum PrivateBroker {
    Kafka { dev: PathBuf, directory: PathBuf, port: String },
    Mock(MockBroker),
}

fn dev(dev: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(dev).arg("kafka").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl PrivateBroker {
    pub(crate) fn start() -> (Self, String) {
        let path = std::env::var_os("CATACLOUD_DEV")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev"), PathBuf::from);
        let directory = std::env::temp_dir().join(format!("epoch-kafka-{}", uuid::Uuid::now_v7()));
        let port = free_ports().to_string();
        match dev(&path, &["start", &directory.to_string_lossy(), &port]) {
            Some(servers) => (Self::Kafka { dev: path, directory, port }, servers),
            None => {
                eprintln!("no private Kafka available: the mock cluster drops its connections instead");
                let mock = MockBroker::start();
                let servers = mock.servers.clone();
                (Self::Mock(mock), servers)
            }
        }
    }

    pub(crate) fn create_topics(&self, config: &KafkaConfig, aggregates: &[&str]) {
        if let Self::Mock(mock) = self {
            mock.create_topics(config, aggregates);
        }
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Kafka { dev: path, directory, .. } => {
                dev(path, &["kill", &directory.to_string_lossy()]).expect("killed");
            }
            Self::Mock(mock) => mock.run(|cluster| cluster.broker_down(-1).unwrap()),
        }
    }

    /// Returns the data directory, or `None` for the mock cluster, which has none.
    pub(crate) fn data_directory(&self) -> Option<PathBuf> {
        match self {
            Self::Kafka { directory, .. } => Some(directory.join("data")),
            Self::Mock(_) => None,
        }
    }

    pub(crate) fn restart(&self) {
        match self {
            Self::Kafka { dev: path, directory, port } => {
                dev(path, &["start", &directory.to_string_lossy(), port]).expect("restarted");
            }
            Self::Mock(mock) => mock.run(|cluster| cluster.broker_up(-1).unwrap()),
        }
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        if let Self::Kafka { dev: path, directory, .. } = self {
            dev(path, &["remove", &directory.to_string_lossy()]);
        }
    }
}
