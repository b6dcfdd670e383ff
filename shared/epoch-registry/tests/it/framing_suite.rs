//! Test suite for buses with a schema registry: record framing, and behaviour while the registry is down or lacks a schema.
//!
//! The tests of each bus include this file and [`confluent`](super::confluent), implement [`TestBroker`] and call
//! [`framing_suite`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use epoch::{
    avro::SchemaText,
    bus::{Bus, PublishError},
    envelope::{Batch, Envelope},
    event::SchemaId,
    handler::Subscription,
    memory::MemorySubscription,
    testkit::{
        bus::{
            EventRecorder,
            kit::{ConsumerTask, LIMIT, events, wait_until},
        },
        metrics,
    },
};
use epoch_registry::{HttpRegistry, SchemaRegistry};
use uuid::Uuid;

use crate::confluent::{FIRST_ID, RegistryServer};

pub(crate) const AGGREGATE: &str = "file";
pub(crate) const SCHEMA_V1: &str =
    r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[{"name":"a","type":"long"}]}"#;
pub(crate) const SCHEMA_V2: &str = r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[
    {"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;

/// A broker with one topic of one partition that belongs to the test.
#[async_trait]
pub(crate) trait TestBroker: Send + Sync {
    /// Returns a bus with an empty schema cache that may register [`SCHEMA_V1`] and [`SCHEMA_V2`].
    async fn bus(&self, registry: Option<Arc<dyn SchemaRegistry>>) -> Arc<dyn Bus>;

    /// Returns whether all buses of this broker report healthy consumers.
    fn is_healthy(&self) -> bool;

    fn topic(&self) -> String;

    /// Reads the first `count` record bodies of the topic.
    async fn record_bodies(&self, count: usize) -> Vec<Vec<u8>>;
}

/// Declares the tests of the suite. `$start` is a future of an optional [`TestBroker`]; without a broker the tests are skipped.
macro_rules! framing_suite {
    ($start:expr) => {
        crate::framing_suite::framing_suite! { $start;
            events_use_confluents_wire_format
            publisher_waits_for_a_registry_that_is_down_at_start
            cached_schemas_need_no_registry
            consumer_waits_for_a_schema_while_the_registry_is_down
            unknown_schema_id_is_never_guessed
            consumer_stops_while_it_waits_for_a_schema
            undeclared_schema_is_not_published
        }
    };
    ($start:expr; $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(broker) = $start.await else { return };
            crate::framing_suite::$name(&broker).await;
        })*
    };
}
pub(crate) use framing_suite;

fn fingerprint(schema: &str) -> SchemaId {
    SchemaText::parse(schema).unwrap().id
}

/// Returns events of one aggregate with these versions and this schema.
fn events_with_schema(id: Uuid, versions: impl IntoIterator<Item = u64>, schema: &str) -> Vec<Arc<Envelope>> {
    let schema = fingerprint(schema);
    let events = events(AGGREGATE, &[id], versions);
    events.iter().map(|event| Arc::new(Envelope { schema, ..Envelope::clone(event) })).collect()
}

fn http_client(registry: &RegistryServer) -> Arc<dyn SchemaRegistry> {
    Arc::new(HttpRegistry::new(&[registry.url()]).unwrap())
}

/// Publishes like the relay: repeats from the first event that is not acknowledged. Returns the errors.
pub(crate) async fn publish_all(bus: &dyn Bus, mut events: &Batch) -> Vec<PublishError> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    while let Err(error) = bus.publish(events).await {
        assert!(start.elapsed() < LIMIT, "not published: {error}");
        assert_eq!(error.offered, events.len());
        events = &events[error.acknowledged..];
        errors.push(error);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    errors
}

type RecordingSubscription = Arc<MemorySubscription<EventRecorder>>;

fn recording_subscription(name: &'static str) -> RecordingSubscription {
    metrics::record();
    Arc::new(MemorySubscription::new(EventRecorder::new(name, &[AGGREGATE])))
}

fn recorded(subscription: &RecordingSubscription) -> Vec<(u64, SchemaId)> {
    subscription.handler().events().iter().map(|event| (event.version.get(), event.schema)).collect()
}

/// Waits until these events are recorded: each once, in order, with its schema.
async fn wait_for_exactly(subscription: &RecordingSubscription, published: &Batch) {
    let complete = subscription.handler().wait_for(published.len()).await;
    assert!(complete, "{} of {} events arrived", recorded(subscription).len(), published.len());
    let expected: Vec<_> = published.iter().map(|event| (event.version.get(), event.schema)).collect();
    assert_eq!(recorded(subscription), expected);
}

fn failed_lookups(subscription: &RecordingSubscription) -> f64 {
    let labels = [("subscription", subscription.name())];
    metrics::value("epoch_bus_waits_for_schema_total", &labels).unwrap_or_default()
}

pub(crate) async fn events_use_confluents_wire_format(broker: &dyn TestBroker) {
    let (registry, id) = (RegistryServer::started().await, Uuid::now_v7());
    let publisher = broker.bus(Some(http_client(&registry))).await;
    let mut published = events_with_schema(id, 1..=2, SCHEMA_V1);
    published.extend(events_with_schema(id, 3..=4, SCHEMA_V2));
    publisher.publish(&published).await.unwrap();

    let schema_ids: Vec<u32> = [0, 0, 1, 1].map(|index| u32::try_from(FIRST_ID + index).unwrap()).to_vec();
    let expected: Vec<_> = std::iter::zip(&published, schema_ids)
        .map(|(event, schema_id)| [&[0], &schema_id.to_be_bytes()[..], &event.payload].concat())
        .collect();
    assert_eq!(broker.record_bodies(4).await, expected);
    {
        let state = registry.state();
        let subject = format!("{}-test.file.Happened", broker.topic());
        assert!(state.schemas.iter().all(|(registered, _)| *registered == subject), "{:?}", state.schemas);
        assert_eq!((state.registrations, state.lookups), (2, 0), "each schema is registered once");
    }

    // A bus without a registry publishes to the same topic. Consumers with and without a registry read both framings.
    let plain = broker.bus(None).await;
    let more = events_with_schema(id, 5..=5, SCHEMA_V2);
    plain.publish(&more).await.unwrap();
    published.extend(more);
    for (name, reader) in [("with", broker.bus(Some(http_client(&registry))).await), ("without", plain)] {
        let subscription = recording_subscription(name);
        let consuming = ConsumerTask::start(&reader, subscription.clone());
        wait_for_exactly(&subscription, &published).await;
        consuming.stop().await.unwrap();
    }
    assert_eq!(registry.state().lookups, 2, "each id is looked up once");
}

pub(crate) async fn publisher_waits_for_a_registry_that_is_down_at_start(broker: &dyn TestBroker) {
    let (mut registry, id) = (RegistryServer::stopped().await, Uuid::now_v7());
    let bus = broker.bus(Some(http_client(&registry))).await;
    let published = events_with_schema(id, 1..=50, SCHEMA_V1);
    let error = bus.publish(&published).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 50));
    assert!(error.detail.contains("schema registry is unavailable"), "{error}");
    assert!(broker.is_healthy(), "a registry outage does not require a restart");

    let retry = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move { publish_all(&*bus, &published).await }
    });
    registry.start().await;
    retry.await.unwrap();
    let subscription = recording_subscription("start");
    let consuming = ConsumerTask::start(&bus, subscription.clone());
    wait_for_exactly(&subscription, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn cached_schemas_need_no_registry(broker: &dyn TestBroker) {
    let (mut registry, id) = (RegistryServer::started().await, Uuid::now_v7());
    let bus = broker.bus(Some(http_client(&registry))).await;
    let mut published = events_with_schema(id, 1..=10, SCHEMA_V1);
    bus.publish(&published).await.unwrap();
    registry.stop().await;
    let known = events_with_schema(id, 11..=20, SCHEMA_V1);
    bus.publish(&known).await.unwrap();
    published.extend(known);
    let subscription = recording_subscription("numbered");
    let consuming = ConsumerTask::start(&bus, subscription.clone());
    wait_for_exactly(&subscription, &published).await;

    // An event with a new schema waits, and so do the events after it. The events before it are published.
    let mut mixed = events_with_schema(id, 21..=25, SCHEMA_V1);
    mixed.extend(events_with_schema(id, 26..=26, SCHEMA_V2));
    mixed.extend(events_with_schema(id, 27..=30, SCHEMA_V1));
    let error = bus.publish(&mixed).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (5, 10), "{error}");
    published.extend_from_slice(&mixed[..5]);
    wait_for_exactly(&subscription, &published).await;
    registry.start().await;
    publish_all(&*bus, &mixed[5..]).await;
    published.extend_from_slice(&mixed[5..]);
    wait_for_exactly(&subscription, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn consumer_waits_for_a_schema_while_the_registry_is_down(broker: &dyn TestBroker) {
    let (mut registry, id) = (RegistryServer::started().await, Uuid::now_v7());
    let mut published = events_with_schema(id, 1..=3, SCHEMA_V1);
    broker.bus(None).await.publish(&published).await.unwrap();
    let framed = events_with_schema(id, 4..=30, SCHEMA_V2);
    broker.bus(Some(http_client(&registry))).await.publish(&framed).await.unwrap();
    registry.stop().await;

    let (reader, subscription) = (broker.bus(Some(http_client(&registry))).await, recording_subscription("away"));
    let consuming = ConsumerTask::start(&reader, subscription.clone());
    wait_until("two schema lookups fail", || failed_lookups(&subscription) >= 2.0).await;
    // Events in single-object encoding need no registry.
    wait_for_exactly(&subscription, &published).await;
    assert!(broker.is_healthy(), "a consumer that waits for a schema is healthy");
    registry.start().await;
    published.extend(framed);
    wait_for_exactly(&subscription, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn unknown_schema_id_is_never_guessed(broker: &dyn TestBroker) {
    let (registry, id) = (RegistryServer::started().await, Uuid::now_v7());
    let published = events_with_schema(id, 1..=5, SCHEMA_V1);
    broker.bus(Some(http_client(&registry))).await.publish(&published).await.unwrap();
    let schemas = std::mem::take(&mut registry.state().schemas);

    let (reader, subscription) = (broker.bus(Some(http_client(&registry))).await, recording_subscription("unknown"));
    let consuming = ConsumerTask::start(&reader, subscription.clone());
    wait_until("two schema lookups fail", || failed_lookups(&subscription) >= 2.0).await;
    assert_eq!(recorded(&subscription), []);
    // An operator restores the registry.
    registry.state().schemas = schemas;
    wait_for_exactly(&subscription, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn consumer_stops_while_it_waits_for_a_schema(broker: &dyn TestBroker) {
    let mut registry = RegistryServer::started().await;
    let published = events_with_schema(Uuid::now_v7(), 1..=5, SCHEMA_V1);
    broker.bus(Some(http_client(&registry))).await.publish(&published).await.unwrap();
    registry.stop().await;
    let (reader, subscription) = (broker.bus(Some(http_client(&registry))).await, recording_subscription("stopped"));
    let consuming = ConsumerTask::start(&reader, subscription.clone());
    wait_until("a schema lookup fails", || failed_lookups(&subscription) >= 1.0).await;
    consuming.stop().await.unwrap();
    assert_eq!(recorded(&subscription), []);
}

pub(crate) async fn undeclared_schema_is_not_published(broker: &dyn TestBroker) {
    let registry = RegistryServer::started().await;
    let bus = broker.bus(Some(http_client(&registry))).await;
    let undeclared = SCHEMA_V1.replace("\"a\"", "\"c\"");
    let error = bus.publish(&events_with_schema(Uuid::now_v7(), 1..=1, &undeclared)).await.unwrap_err();
    let expected = format!("schema {} is not among the schemas that the bus may register", fingerprint(&undeclared));
    assert!(error.detail.contains(&expected), "{error}");
}
