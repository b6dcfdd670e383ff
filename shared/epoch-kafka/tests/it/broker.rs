//! A broker that a test may kill.

use std::path::PathBuf;

use devstack::servers::{Kafka, Server};
use epoch::testkit::free_ports;
use epoch_kafka::KafkaConfig;

use crate::support::MockBroker;

/// A broker that belongs to one test: Apache Kafka, or the mock cluster where Kafka is not installed.
pub(crate) enum PrivateBroker {
    Kafka { server: Kafka, directory: PathBuf, port: u16 },
    Mock(MockBroker),
}

impl PrivateBroker {
    pub(crate) fn start() -> (Self, String) {
        let directory = std::env::temp_dir().join(format!("epoch-kafka-{}", uuid::Uuid::now_v7()));
        let port = free_ports();
        let server = Kafka::new(&directory).unwrap();
        match server.start(port) {
            Ok(servers) => (Self::Kafka { server, directory, port }, servers),
            Err(error) => {
                eprintln!("no private Kafka available: the mock cluster drops its connections instead: {error}");
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
            Self::Kafka { server, .. } => server.kill().expect("killed"),
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
            Self::Kafka { server, port, .. } => {
                server.start(*port).expect("restarted");
            }
            Self::Mock(mock) => mock.run(|cluster| cluster.broker_up(-1).unwrap()),
        }
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        if let Self::Kafka { server, .. } = self {
            let _ = server.remove();
        }
    }
}
