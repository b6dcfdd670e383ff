//! With a schema registry.

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
    framing_suite::{AGGREGATE, Broker, ONE, TWO, framed},
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
impl Broker for Kafka {
    async fn bus(&self, registry: Option<Arc<dyn SchemaRegistry>>) -> Arc<dyn Bus> {
        let bus = match registry {
            Some(registry) => KafkaBus::connect_with(self.config.clone(), registry, &[TWO, ONE]),
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

    async fn bodies(&self, count: usize) -> Vec<Vec<u8>> {
        bodies(&self.config, count).await
    }
}

framed! { kafka();
    events_are_framed_for_confluents_clients_and_come_back
    a_registry_that_is_away_at_the_start_is_waited_for
    what_was_numbered_before_needs_no_registry
    events_wait_for_their_schema_while_the_registry_is_away
    a_schema_that_the_registry_does_not_know_is_never_guessed_and_nothing_is_lost
    a_consumer_that_waits_for_a_schema_can_be_stopped
    a_schema_that_the_bus_was_not_given_is_not_published
}

/// The bodies on the topic of one partition.
async fn bodies(config: &KafkaConfig, count: usize) -> Vec<Vec<u8>> {
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
            assert!(start.elapsed() < LIMIT, "{} of {count} records came", bodies.len());
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            bodies.push(message.payload().unwrap().to_vec());
        }
        bodies
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[test]
fn schemas_that_describe_no_event_are_refused_at_once() {
    let registry = Arc::new(HttpRegistry::new(&["http://127.0.0.1:1"]).unwrap());
    let invalid = KafkaBus::connect_with(KafkaConfig::new("127.0.0.1:1"), registry, &["{}"]).err().unwrap();
    assert!(matches!(invalid, Error::Registry { source: RegistryError::Invalid(_) }), "{invalid}");
}
