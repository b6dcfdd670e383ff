//! The conformance suite of all buses, for the Kafka bus.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    bus::Bus,
    testkit::bus::{AGGREGATE, BusFactory, Factory},
};
use epoch_kafka::KafkaConfig;
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};

use crate::support::{LIMIT, bus_with, config, topic};

struct Kafka(KafkaConfig);

impl Kafka {
    async fn start() -> Factory {
        // Limits the time until a crashed consumer's batch is rolled back.
        Arc::new(Self(KafkaConfig { drain_timeout: Duration::from_millis(500), ..config() }))
    }
}

#[async_trait]
impl BusFactory for Kafka {
    async fn bus(&self) -> Arc<dyn Bus> {
        bus_with(&self.0, &[AGGREGATE]).await
    }

    async fn publish_malformed(&self) -> bool {
        let stray: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.0.bootstrap_servers).create().unwrap();
        let topic = topic(&self.0, AGGREGATE);
        for key in ["one", "two", "three"] {
            stray.send(FutureRecord::to(&topic).key(key).payload("hello, world"), LIMIT).await.unwrap();
        }
        true
    }

    /// One batch in each of the three partitions.
    fn max_in_flight(&self) -> usize {
        1_500
    }

    fn shares_work(&self) -> bool {
        true
    }
}

epoch::bus_conformance!(Kafka::start());
