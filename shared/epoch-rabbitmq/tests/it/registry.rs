//! The RabbitMQ bus with a schema registry.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::bus::Bus;
use epoch_rabbitmq::{Error, RabbitBus, RabbitConfig};
use epoch_registry::{HttpRegistry, RegistryError, SchemaRegistry};
use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    framing_suite::{AGGREGATE, SCHEMA_V1, SCHEMA_V2, TestBroker, framing_suite},
    support::*,
};

struct Rabbit(RabbitConfig);

async fn rabbit() -> Option<Rabbit> {
    Some(Rabbit(RabbitConfig { partitions: 1, ..config()? }))
}

#[async_trait]
impl TestBroker for Rabbit {
    async fn bus(&self, registry: Option<Arc<dyn SchemaRegistry>>) -> Arc<dyn Bus> {
        let bus = match registry {
            Some(registry) => RabbitBus::new_with(self.0.clone(), registry, &[SCHEMA_V2, SCHEMA_V1]),
            None => RabbitBus::new(self.0.clone()),
        };
        Arc::new(bus.unwrap())
    }

    fn is_healthy(&self) -> bool {
        true
    }

    fn topic(&self) -> String {
        epoch::message::topic(&self.0.namespace, AGGREGATE)
    }

    async fn record_bodies(&self, count: usize) -> Vec<Vec<u8>> {
        let connection = Connection::connect(&self.0.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongLongInt(0));
        let stream = format!("{}.0", self.topic());
        let options = BasicConsumeOptions::default();
        let messages = channel.basic_consume(stream.into(), "".into(), options, arguments).await.unwrap();
        let bodies = messages.take(count).map(|message| message.unwrap().data).collect();
        tokio::time::timeout(LIMIT, bodies).await.unwrap()
    }
}

framing_suite! { rabbit() }

#[test]
fn new_with_rejects_schemas_that_describe_no_event() {
    let registry = Arc::new(HttpRegistry::new(&["http://127.0.0.1:1"]).unwrap());
    let invalid = RabbitBus::new_with(RabbitConfig::new("amqp://127.0.0.1:1"), registry, &["{}"]).err().unwrap();
    assert!(matches!(invalid, Error::Registry { source: RegistryError::Invalid(_) }), "{invalid}");
}
