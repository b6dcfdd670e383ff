//! A broker that is killed and started again.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use epoch::bus::Bus;
use epoch_kafka::{KafkaBus, KafkaConfig};

use crate::{publishing::publish_all, support::*};

/// A broker of this test's own, which it may kill: Apache Kafka, or the mock cluster where that can't be had.
enum PrivateBroker {
    Kafka { dev: PathBuf, directory: PathBuf, port: String },
    Mock(MockBroker),
}

fn dev(dev: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(dev).arg("kafka").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl PrivateBroker {
    fn start() -> (Self, String) {
        let path = std::env::var_os("CATACLOUD_DEV")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev"), PathBuf::from);
        let directory = std::env::temp_dir().join(format!("epoch-kafka-{}", uuid::Uuid::now_v7()));
        // The port and the one after it, free a moment ago.
        let port = loop {
            let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port.to_string();
            }
        };
        match dev(&path, &["start", &directory.to_string_lossy(), &port]) {
            Some(servers) => (Self::Kafka { dev: path, directory, port }, servers),
            None => {
                eprintln!("no private Kafka to kill: the mock cluster loses its connections instead");
                let mock = MockBroker::start();
                let servers = mock.servers.clone();
                (Self::Mock(mock), servers)
            }
        }
    }

    fn create_topics(&self, config: &KafkaConfig, aggregates: &[&str]) {
        if let Self::Mock(mock) = self {
            mock.create_topics(config, aggregates);
        }
    }

    fn kill(&self) {
        match self {
            Self::Kafka { dev: path, directory, .. } => {
                dev(path, &["kill", &directory.to_string_lossy()]).expect("killed");
            }
            Self::Mock(mock) => mock.ask(|cluster| cluster.broker_down(-1).unwrap()),
        }
    }

    fn start_again(&self) {
        match self {
            Self::Kafka { dev: path, directory, port } => {
                dev(path, &["start", &directory.to_string_lossy(), port]).expect("started again");
            }
            Self::Mock(mock) => mock.ask(|cluster| cluster.broker_up(-1).unwrap()),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_and_turns_round_nothing() {
    let (broker, servers) = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap();
    let broker = Arc::new(broker);
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(2), ..private(servers) };
    broker.create_topics(&config, &["file"]);
    let bus = Arc::new(KafkaBus::connect(config).unwrap());
    bus.ensure_topics(&["file"]).await.unwrap();
    let gate = gate("surviving", &["file"]);
    let consuming = Consuming::start(&bus, gate.clone());

    let published = events("file", &ids(50), 1..=100);
    let publishing = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move {
            let mut errors = Vec::new();
            for batch in published.chunks(50) {
                errors.extend(publish_all(&bus, batch).await);
            }
            errors
        }
    });
    wait_for_events(&gate, 1_000).await;
    let restarted = tokio::task::spawn_blocking({
        let broker = Arc::clone(&broker);
        move || {
            broker.kill();
            broker.start_again();
        }
    });
    let errors = publishing.await.unwrap();
    restarted.await.unwrap();
    wait_for_events(&gate, published.len()).await;
    eprintln!("{} publications failed while the broker was away", errors.len());
    assert!(bus.healthy().is_ok());
    assert_exactly_once(&seen(&gate), &published);

    // And it stops while the broker is away, although librdkafka would wait for its word.
    let killed = tokio::task::spawn_blocking(move || broker.kill()).await;
    killed.unwrap();
    let start = std::time::Instant::now();
    consuming.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(bus.publish(&published[..1]).await.is_err());
}
