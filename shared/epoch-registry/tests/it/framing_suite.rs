//! What every bus does with a schema registry: what lies on its topics, and what happens while the registry is away, or doesn't
//! know. The tests of each bus include this file and [`confluent`](super::confluent), and say how to make the bus.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use epoch::{
    avro::SchemaText,
    bus::Bus,
    envelope::{Batch, Envelope},
    event::SchemaId,
    handler::EventHandler,
    memory::MemorySubscription,
    testkit::{
        bus::kit::{Consuming, LIMIT, events, wait_until},
        metrics,
    },
};
use epoch_registry::{HttpRegistry, SchemaRegistry};
use tokio::sync::watch;
use uuid::Uuid;

use crate::confluent::{FIRST_ID, Registry};

/// The aggregate whose events are published.
pub(crate) const AGGREGATE: &str = "file";
pub(crate) const ONE: &str =
    r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[{"name":"a","type":"long"}]}"#;
pub(crate) const TWO: &str = r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[
    {"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;

/// A topic with one partition, that nobody else uses.
#[async_trait]
pub(crate) trait Broker: Send + Sync {
    /// A process's bus, which has asked this registry nothing yet, and may register [`ONE`] and [`TWO`].
    async fn bus(&self, registry: Option<Arc<dyn SchemaRegistry>>) -> Arc<dyn Bus>;

    /// Whether all consumers of these processes can go on.
    fn is_healthy(&self) -> bool;

    /// The topic's name.
    fn topic(&self) -> String;

    /// The first bodies on the topic.
    async fn bodies(&self, count: usize) -> Vec<Vec<u8>>;
}

/// Makes a test of each of these functions, for the broker that `$start` gives.
macro_rules! framed {
    ($start:expr; $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(broker) = $start.await else { return };
            crate::framing_suite::$name(&broker).await;
        })*
    };
}
pub(crate) use framed;

fn id_of(schema: &str) -> SchemaId {
    SchemaText::parse(schema).unwrap().id
}

/// Some versions of an aggregate's events, written with a schema.
fn written(id: Uuid, versions: impl IntoIterator<Item = u64>, schema: &str) -> Vec<Arc<Envelope>> {
    let schema = id_of(schema);
    let events = events(AGGREGATE, &[id], versions);
    events.iter().map(|event| Arc::new(Envelope { schema, ..Envelope::clone(event) })).collect()
}

fn http(registry: &Registry) -> Arc<dyn SchemaRegistry> {
    Arc::new(HttpRegistry::new(&[registry.url()]).unwrap())
}

/// Publishes as the relay does: again from the first that isn't acknowledged.
async fn publish_all(bus: &Arc<dyn Bus>, mut events: &Batch) {
    let start = Instant::now();
    while let Err(error) = bus.publish(events).await {
        assert!(start.elapsed() < LIMIT, "{error}");
        events = &events[error.acknowledged..];
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes down version and schema of what it sees.
struct Recorder {
    name: &'static str,
    seen: watch::Sender<Vec<(u64, SchemaId)>>,
}

#[async_trait]
impl EventHandler<()> for Recorder {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Infallible> {
        self.seen.send_modify(|seen| seen.extend(events.iter().map(|event| (event.version.get(), event.schema))));
        Ok(())
    }
}

type Gate = Arc<MemorySubscription<Recorder>>;

fn gate(name: &'static str) -> Gate {
    metrics::record();
    Arc::new(MemorySubscription::new(Recorder { name, seen: watch::Sender::default() }))
}

fn seen(gate: &Gate) -> Vec<(u64, SchemaId)> {
    gate.handler().seen.borrow().clone()
}

/// Waits until these events were seen: each once, in order, with its schema.
async fn arrived(gate: &Gate, published: &Batch) {
    let mut seen = gate.handler().seen.subscribe();
    let waited = tokio::time::timeout(LIMIT, seen.wait_for(|seen| seen.len() >= published.len())).await;
    assert!(waited.is_ok(), "{} of {} events came", self::seen(gate).len(), published.len());
    let expected: Vec<_> = published.iter().map(|event| (event.version.get(), event.schema)).collect();
    assert_eq!(self::seen(gate), expected);
}

fn waits(gate: &Gate) -> f64 {
    metrics::value("epoch_bus_waits_for_schema_total", &[("subscription", gate.handler().name)]).unwrap_or_default()
}

pub(crate) async fn events_are_framed_for_confluents_clients_and_come_back(broker: &dyn Broker) {
    let (registry, id) = (Registry::started().await, Uuid::now_v7());
    let publisher = broker.bus(Some(http(&registry))).await;
    let mut published = written(id, 1..=2, ONE);
    published.extend(written(id, 3..=4, TWO));
    publisher.publish(&published).await.unwrap();

    let numbers: Vec<u32> = [0, 0, 1, 1].map(|index| u32::try_from(FIRST_ID + index).unwrap()).to_vec();
    let expected: Vec<_> = std::iter::zip(&published, numbers)
        .map(|(event, number)| [&[0], &number.to_be_bytes()[..], &event.payload].concat())
        .collect();
    assert_eq!(broker.bodies(4).await, expected);
    {
        let kept = registry.kept();
        let subject = format!("{}-test.file.Happened", broker.topic());
        assert!(kept.schemas.iter().all(|(under, _)| *under == subject), "{:?}", kept.schemas);
        assert_eq!((kept.registrations, kept.questions), (2, 0), "each is registered once");
    }

    // One without a registry adds to them; all are read by one with it and by one without.
    let plain = broker.bus(None).await;
    let more = written(id, 5..=5, TWO);
    plain.publish(&more).await.unwrap();
    published.extend(more);
    for (name, reader) in [("with", broker.bus(Some(http(&registry))).await), ("without", plain)] {
        let gate = gate(name);
        let consuming = Consuming::start(&reader, gate.clone());
        arrived(&gate, &published).await;
        consuming.stop().await.unwrap();
    }
    assert_eq!(registry.kept().questions, 2, "each number is asked for once");
}

pub(crate) async fn a_registry_that_is_away_at_the_start_is_waited_for(broker: &dyn Broker) {
    let (mut registry, id) = (Registry::stopped().await, Uuid::now_v7());
    let bus = broker.bus(Some(http(&registry))).await;
    let published = written(id, 1..=50, ONE);
    let error = bus.publish(&published).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 50));
    assert!(error.detail.contains("registry gives no answer"), "{error}");
    assert!(broker.is_healthy(), "a registry that is away is no reason to restart");

    let again = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move { publish_all(&bus, &published).await }
    });
    registry.start().await;
    again.await.unwrap();
    let gate = gate("start");
    let consuming = Consuming::start(&bus, gate.clone());
    arrived(&gate, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn what_was_numbered_before_needs_no_registry(broker: &dyn Broker) {
    let (mut registry, id) = (Registry::started().await, Uuid::now_v7());
    let bus = broker.bus(Some(http(&registry))).await;
    let mut published = written(id, 1..=10, ONE);
    bus.publish(&published).await.unwrap();
    registry.stop().await;
    let known = written(id, 11..=20, ONE);
    bus.publish(&known).await.unwrap();
    published.extend(known);
    let gate = gate("numbered");
    let consuming = Consuming::start(&bus, gate.clone());
    arrived(&gate, &published).await;

    // A new schema waits, and what is behind it; what is before it doesn't.
    let mut mixed = written(id, 21..=25, ONE);
    mixed.extend(written(id, 26..=26, TWO));
    mixed.extend(written(id, 27..=30, ONE));
    let error = bus.publish(&mixed).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (5, 10), "{error}");
    published.extend_from_slice(&mixed[..5]);
    arrived(&gate, &published).await;
    registry.start().await;
    publish_all(&bus, &mixed[5..]).await;
    published.extend_from_slice(&mixed[5..]);
    arrived(&gate, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn events_wait_for_their_schema_while_the_registry_is_away(broker: &dyn Broker) {
    let (mut registry, id) = (Registry::started().await, Uuid::now_v7());
    let mut published = written(id, 1..=3, ONE);
    broker.bus(None).await.publish(&published).await.unwrap();
    let framed = written(id, 4..=30, TWO);
    broker.bus(Some(http(&registry))).await.publish(&framed).await.unwrap();
    registry.stop().await;

    let (reader, gate) = (broker.bus(Some(http(&registry))).await, gate("away"));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it asks in vain, again", || waits(&gate) >= 2.0).await;
    // What needs no registry.
    arrived(&gate, &published).await;
    assert!(broker.is_healthy(), "it is not stuck, it waits");
    registry.start().await;
    published.extend(framed);
    arrived(&gate, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn a_schema_that_the_registry_does_not_know_is_never_guessed_and_nothing_is_lost(broker: &dyn Broker) {
    let (registry, id) = (Registry::started().await, Uuid::now_v7());
    let published = written(id, 1..=5, ONE);
    broker.bus(Some(http(&registry))).await.publish(&published).await.unwrap();
    let kept = std::mem::take(&mut registry.kept().schemas);

    let (reader, gate) = (broker.bus(Some(http(&registry))).await, gate("unknown"));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it is told that there is no such schema, again", || waits(&gate) >= 2.0).await;
    assert_eq!(seen(&gate), []);
    // Somebody restores the registry.
    registry.kept().schemas = kept;
    arrived(&gate, &published).await;
    consuming.stop().await.unwrap();
}

pub(crate) async fn a_consumer_that_waits_for_a_schema_can_be_stopped(broker: &dyn Broker) {
    let mut registry = Registry::started().await;
    let published = written(Uuid::now_v7(), 1..=5, ONE);
    broker.bus(Some(http(&registry))).await.publish(&published).await.unwrap();
    registry.stop().await;
    let (reader, gate) = (broker.bus(Some(http(&registry))).await, gate("stopped"));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it waits", || waits(&gate) >= 1.0).await;
    consuming.stop().await.unwrap();
    assert_eq!(seen(&gate), []);
}

pub(crate) async fn a_schema_that_the_bus_was_not_given_is_not_published(broker: &dyn Broker) {
    let registry = Registry::started().await;
    let bus = broker.bus(Some(http(&registry))).await;
    let strange = ONE.replace("\"a\"", "\"c\"");
    let error = bus.publish(&written(Uuid::now_v7(), 1..=1, &strange)).await.unwrap_err();
    let expected = format!("schema {} is not among those that may be registered", id_of(&strange));
    assert!(error.detail.contains(&expected), "{error}");
}
