//! The Kafka bus with a schema registry.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use epoch::bus::Bus;
use epoch_kafka::{Error, KafkaBus, KafkaConfig};
use epoch_registry::{HttpRegistry, RegistryError, SchemaRegistry};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    framing_suite::{AGGREGATE, SCHEMA_V1, SCHEMA_V2, TestBroker, framing_suite},
    support::*,
};

struct Kafka {
    config: KafkaConfig,
    buses: Mutex<Vec<Arc<KafkaBus>>>,
}

async fn kafka() -> Option<Kafka> {
    let config = KafkaConfig { partitions: 1, ..config() };
    if let Some(mock) = shared_mock() {
        mock.create_topics(&config, &[AGGREGATE]);
    }
    Some(Kafka { config, buses: Mutex::default() })
}

#[async_trait]
impl TestBroker for Kafka {
    async fn bus(&self, registry: Option<Arc<dyn SchemaRegistry>>) -> Arc<dyn Bus> {
        let bus = match registry {
            Some(registry) => KafkaBus::connect_with(self.config.clone(), registry, &[SCHEMA_V2, SCHEMA_V1]),
            None => KafkaBus::connect(self.config.clone()),
        };
        let bus = Arc::new(bus.unwrap());
        bus.ensure_topics(&[AGGREGATE]).await.unwrap();
        self.buses.lock().unwrap().push(Arc::clone(&bus));
        bus
    }

    fn is_healthy(&self) -> bool {
        self.buses.lock().unwrap().iter().all(|bus| bus.healthy().is_ok())
    }

    fn topic(&self) -> String {
        topic(&self.config, AGGREGATE)
    }

    async fn record_bodies(&self, count: usize) -> Vec<Vec<u8>> {
        read_bodies(&self.config, count).await
    }
}

framing_suite! { kafka() }

/// Reads the first `count` record bodies of the topic.
async fn read_bodies(config: &KafkaConfig, count: usize) -> Vec<Vec<u8>> {
    let (servers, topic) = (config.bootstrap_servers.clone(), topic(config, "file"));
    let read = move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", format!("{topic}.reader"))
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&[&topic]).unwrap();
        let (start, mut bodies) = (std::time::Instant::now(), Vec::new());
        while bodies.len() < count {
            assert!(start.elapsed() < LIMIT, "{} of {count} records arrived", bodies.len());
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            bodies.push(message.payload().unwrap().to_vec());
        }
        bodies
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[test]
fn connect_with_rejects_schemas_that_describe_no_event() {
    let registry = Arc::new(HttpRegistry::new(&["http://127.0.0.1:1"]).unwrap());
    let invalid = KafkaBus::connect_with(KafkaConfig::new("127.0.0.1:1"), registry, &["{}"]).err().unwrap();
    assert!(matches!(invalid, Error::Registry { source: RegistryError::Invalid(_) }), "{invalid}");
}
