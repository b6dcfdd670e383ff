//! With a schema registry: what is on the topic, and what happens while the registry is away, or doesn't know.

use std::{collections::HashMap, sync::Arc, time::Duration};

use epoch::{avro::SchemaText, bus::Bus, envelope::Envelope, event::SchemaId};
use epoch_kafka::{Error, HttpRegistry, KafkaBus, KafkaConfig, RegistryError, SchemaRegistry};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};
use uuid::Uuid;

use crate::{
    confluent::{FIRST_ID, Registry},
    publishing::publish_all,
    support::*,
};

const ONE: &str =
    r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[{"name":"a","type":"long"}]}"#;
const TWO: &str = r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[
    {"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;

fn id_of(schema: &str) -> SchemaId {
    SchemaText::parse(schema).unwrap().id
}

/// Some versions of an aggregate's events, written with a schema.
fn written(id: Uuid, versions: impl IntoIterator<Item = u64>, schema: &str) -> Vec<Arc<Envelope>> {
    let schema = id_of(schema);
    let events = events("file", &[id], versions);
    events.iter().map(|event| Arc::new(Envelope { schema, ..Envelope::clone(event) })).collect()
}

fn http(registry: &Registry) -> Arc<HttpRegistry> {
    Arc::new(HttpRegistry::new(&[registry.url()]).unwrap())
}

/// A process's bus, which has asked the registry nothing yet.
async fn bus(config: &KafkaConfig, registry: &Registry) -> Arc<KafkaBus> {
    if let Some(mock) = shared_mock() {
        mock.create_topics(config, &["file"]);
    }
    let bus = KafkaBus::connect_with(config.clone(), http(registry), &[TWO, ONE]).unwrap();
    bus.ensure_topics(&["file"]).await.unwrap();
    Arc::new(bus)
}

fn one_partition() -> KafkaConfig {
    KafkaConfig { partitions: 1, ..config() }
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

fn waits(gate: &Gate) -> f64 {
    use epoch::handler::Subscription;
    metric("epoch_bus_waits_for_schema_total", &[("subscription", gate.name())]).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_framed_for_confluents_clients_and_come_back() {
    let (config, registry, id) = (one_partition(), Registry::started().await, Uuid::now_v7());
    let publisher = bus(&config, &registry).await;
    let mut published = written(id, 1..=2, ONE);
    published.extend(written(id, 3..=4, TWO));
    publisher.publish(&published).await.unwrap();

    let numbers: Vec<u32> = [0, 0, 1, 1].map(|index| u32::try_from(FIRST_ID + index).unwrap()).to_vec();
    let expected: Vec<_> = std::iter::zip(&published, numbers)
        .map(|(event, number)| [&[0], &number.to_be_bytes()[..], &event.payload].concat())
        .collect();
    assert_eq!(bodies(&config, 4).await, expected);
    {
        let kept = registry.kept();
        let subject = format!("{}-test.file.Happened", topic(&config, "file"));
        assert!(kept.schemas.iter().all(|(under, _)| *under == subject), "{:?}", kept.schemas);
        assert_eq!((kept.registrations, kept.questions), (2, 0), "each is registered once");
    }

    // One without a registry adds to them; all are read by one with it and by one without.
    let plain = bus_with(&config, &["file"]).await;
    plain.publish(&written(id, 5..=5, TWO)).await.unwrap();
    for (name, reader) in [("with", bus(&config, &registry).await), ("without", plain)] {
        let schemas = Arc::new(std::sync::Mutex::new(HashMap::new()));
        let (gate, seen) = (gate(name, &["file"]), Arc::clone(&schemas));
        let subscription = around(&gate, move |gate, events| {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                use epoch::handler::Subscription;
                seen.lock().unwrap().extend(events.iter().map(|event| (event.version.get(), event.schema)));
                gate.deliver(events, epoch::gate::Way::Bus).await
            })
        });
        let consuming = Consuming::start(&reader, subscription);
        wait_for_events(&gate, 5).await;
        consuming.stop().await.unwrap();
        let seen = schemas.lock().unwrap().clone();
        let expected = [(1, ONE), (2, ONE), (3, TWO), (4, TWO), (5, TWO)].map(|(version, json)| (version, id_of(json)));
        assert_eq!(seen, HashMap::from(expected), "{name}");
    }
    assert_eq!(registry.kept().questions, 2, "each number is asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_at_the_start_is_waited_for() {
    let (config, mut registry, id) = (one_partition(), Registry::stopped().await, Uuid::now_v7());
    let bus = bus(&config, &registry).await;
    let published = written(id, 1..=50, ONE);
    let error = bus.publish(&published).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 50));
    assert!(error.detail.contains("registry gives no answer"), "{error}");
    assert!(bus.healthy().is_ok(), "a registry that is away is no reason to restart");

    let again = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move { publish_all(&bus, &published).await }
    });
    registry.start().await;
    again.await.unwrap();
    let gate = gate("start", &["file"]);
    let consuming = Consuming::start(&bus, gate.clone());
    wait_for_events(&gate, 50).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_numbered_before_needs_no_registry() {
    let (config, mut registry, id) = (one_partition(), Registry::started().await, Uuid::now_v7());
    let bus = bus(&config, &registry).await;
    let mut published = written(id, 1..=10, ONE);
    bus.publish(&published).await.unwrap();
    registry.stop().await;
    let known = written(id, 11..=20, ONE);
    bus.publish(&known).await.unwrap();
    published.extend(known);
    let gate = gate("numbered", &["file"]);
    let consuming = Consuming::start(&bus, gate.clone());
    wait_for_events(&gate, 20).await;

    // A new schema waits, and what is behind it; what is before it doesn't.
    let mut mixed = written(id, 21..=25, ONE);
    mixed.extend(written(id, 26..=26, TWO));
    mixed.extend(written(id, 27..=30, ONE));
    let error = bus.publish(&mixed).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (5, 10), "{error}");
    wait_for_events(&gate, 25).await;
    registry.start().await;
    publish_all(&bus, &mixed[5..]).await;
    published.extend(mixed);
    wait_for_events(&gate, 30).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_their_schema_while_the_registry_is_away() {
    let (config, mut registry, id) = (one_partition(), Registry::started().await, Uuid::now_v7());
    let plain = bus_with(&config, &["file"]).await;
    let mut published = written(id, 1..=3, ONE);
    plain.publish(&published).await.unwrap();
    let framed = written(id, 4..=30, TWO);
    bus(&config, &registry).await.publish(&framed).await.unwrap();
    published.extend(framed);
    registry.stop().await;

    let (reader, gate) = (bus(&config, &registry).await, gate("away", &["file"]));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it asks in vain, again", || waits(&gate) >= 2.0).await;
    assert_eq!(count(&gate), 3, "what needs no registry");
    assert!(reader.healthy().is_ok(), "it is not stuck, it waits");
    registry.start().await;
    wait_for_events(&gate, 30).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_the_registry_does_not_know_is_never_guessed_and_nothing_is_lost() {
    let (config, registry, id) = (one_partition(), Registry::started().await, Uuid::now_v7());
    let published = written(id, 1..=5, ONE);
    bus(&config, &registry).await.publish(&published).await.unwrap();
    let kept = std::mem::take(&mut registry.kept().schemas);
    let number = u32::try_from(FIRST_ID).unwrap();
    let asked = http(&registry).schema(number).await;
    assert_eq!(asked, Err(RegistryError::UnknownId { id: number }));

    let (reader, gate) = (bus(&config, &registry).await, gate("unknown", &["file"]));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it is told that there is no such schema, again", || waits(&gate) >= 2.0).await;
    assert_eq!(count(&gate), 0);
    // Somebody restores the registry.
    registry.kept().schemas = kept;
    wait_for_events(&gate, 5).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_waits_for_a_schema_can_be_stopped() {
    let (config, mut registry) = (one_partition(), Registry::started().await);
    bus(&config, &registry).await.publish(&written(Uuid::now_v7(), 1..=5, ONE)).await.unwrap();
    registry.stop().await;
    let (reader, gate) = (bus(&config, &registry).await, gate("stopped", &["file"]));
    let consuming = Consuming::start(&reader, gate.clone());
    wait_until("it waits", || waits(&gate) >= 1.0).await;
    consuming.stop().await.unwrap();
    assert_eq!(count(&gate), 0);
}

#[tokio::test]
async fn refusals_and_silence_are_told_apart() {
    let mut registry = Registry::started().await;
    let client = http(&registry);
    let number = client.register("t-test.file.Happened", ONE).await.unwrap();
    assert_eq!(usize::try_from(number).unwrap(), FIRST_ID);
    let schema = client.schema(number).await.unwrap();
    assert_eq!(id_of(&schema), id_of(ONE));

    registry.kept().refuses = true;
    let refused = client.register("t-test.file.Happened", TWO).await.unwrap_err();
    assert!(
        matches!(&refused, RegistryError::Refused { subject, detail }
        if subject == "t-test.file.Happened" && detail.contains("incompatible")),
        "{refused}"
    );
    let invalid = client.register("t-test.file.Happened", "{").await.unwrap_err();
    assert!(matches!(invalid, RegistryError::Refused { .. }), "{invalid}");

    registry.stop().await;
    let silent = client.register("t-test.file.Happened", ONE).await.unwrap_err();
    assert!(matches!(silent, RegistryError::Unavailable { .. }), "{silent}");
    let silent = client.schema(number).await.unwrap_err();
    assert!(matches!(silent, RegistryError::Unavailable { .. }), "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_the_bus_was_not_given_is_not_published() {
    let (config, registry) = (one_partition(), Registry::started().await);
    let bus = bus(&config, &registry).await;
    let strange = ONE.replace("\"a\"", "\"c\"");
    let error = bus.publish(&written(Uuid::now_v7(), 1..=1, &strange)).await.unwrap_err();
    let expected = format!("schema {} is not among those that may be registered", id_of(&strange));
    assert!(error.detail.contains(&expected), "{error}");

    let invalid = KafkaBus::connect_with(config, http(&registry), &["{}"]).err().unwrap();
    assert!(matches!(invalid, Error::Registry { source: RegistryError::Invalid(_) }), "{invalid}");
    let no_urls: [&str; 0] = [];
    assert!(matches!(HttpRegistry::new(&no_urls), Err(RegistryError::Settings { .. })));
}
