//! The conformance suite of all buses, for the RabbitMQ bus.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    bus::Bus,
    testkit::bus::{AGGREGATE, BusFactory, Factory},
};
use epoch_rabbitmq::{RabbitBus, RabbitConfig};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use crate::support::config;

struct Rabbit(RabbitConfig);

impl Rabbit {
    async fn start() -> Option<Factory> {
        Some(Arc::new(Self(config()?)))
    }
}

#[async_trait]
impl BusFactory for Rabbit {
    async fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(RabbitBus::new(self.0.clone()).unwrap())
    }

    async fn publish_malformed(&self) -> bool {
        let connection = Connection::connect(&self.0.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for partition in 0..self.0.partitions {
            let stream = format!("{}.{partition}", epoch::message::topic(&self.0.namespace, AGGREGATE));
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let stray = channel.basic_publish("".into(), stream.into(), options, b"hello", BasicProperties::default());
            assert!(stray.await.unwrap().await.unwrap().take_message().is_none(), "the stream exists");
        }
        true
    }

    /// One batch in each of the three streams.
    fn max_in_flight(&self) -> usize {
        1_500
    }

    fn shares_work(&self) -> bool {
        true
    }
}

epoch::bus_conformance!(Rabbit::start());
