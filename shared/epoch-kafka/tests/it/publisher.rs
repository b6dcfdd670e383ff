//! What is on the topic after something went wrong.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::testkit::free_ports;
use epoch::{
    bus::{Bus, PublishError},
    envelope::Envelope,
};
use epoch_kafka::{KafkaBus, KafkaConfig};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use uuid::Uuid;

use crate::support::*;

/// Publishes as the relay does: again from the first that isn't acknowledged.
pub(crate) async fn publish_all(bus: &KafkaBus, mut events: &[Arc<Envelope>]) -> Vec<PublishError> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    while let Err(error) = bus.publish(events).await {
        assert!(start.elapsed() < LIMIT, "{error}");
        assert_eq!(error.offered, events.len());
        events = &events[error.acknowledged..];
        errors.push(error);
    }
    errors
}

/// Reads a topic of one partition until every aggregate's last event is there; gives key and version of each record.
fn read_topic(config: &KafkaConfig, events: &[Arc<Envelope>]) -> Vec<(String, u64)> {
    let mut missing: HashMap<_, _> = events.iter().map(|event| (event.aggregate_id, event.version.get())).collect();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", format!("{}.reader", config.namespace))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic(config, "file")]).unwrap();
    let (start, mut records) = (Instant::now(), Vec::new());
    while !missing.is_empty() {
        assert!(start.elapsed() < LIMIT, "missing: {missing:?}");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let key = std::str::from_utf8(message.key().unwrap()).unwrap().to_owned();
        let header = message.headers().unwrap().iter().find(|header| header.key == "version").unwrap();
        let version: u64 = std::str::from_utf8(header.value.unwrap()).unwrap().parse().unwrap();
        missing.retain(|id, last| id.to_string() != key || version != *last);
        records.push((key, version));
    }
    records
}

/// Repetitions are allowed; holes and early ones aren't.
fn assert_first_appearances_in_order(records: &[(String, u64)]) {
    let mut highest: HashMap<&str, u64> = HashMap::new();
    for (key, version) in records {
        let highest = highest.entry(key).or_default();
        assert!(*version <= *highest + 1, "{key}: {version} came after {highest}");
        *highest = (*highest).max(*version);
    }
}

fn set(config: &mut KafkaConfig, name: &str, value: &str) {
    config.settings.insert(name.to_owned(), value.to_owned());
}

/// A mock cluster of one partition whose answers to produce requests can be chosen, and small batches.
fn private_mock() -> (MockBroker, KafkaConfig) {
    let mock = MockBroker::start();
    let mut config = KafkaConfig { partitions: 1, delivery_timeout: Duration::from_secs(1), ..private(&mock.servers) };
    set(&mut config, "batch.num.messages", "20");
    // Unlike a broker, it takes what is in flight behind a refused batch: it doesn't look at sequence numbers.
    set(&mut config, "max.in.flight.requests.per.connection", "1");
    mock.create_topics(&config, &["file"]);
    (mock, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_leaves_no_hole() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__TRANSPORT as CONNECTION_LOST, RD_KAFKA_RESP_ERR_INVALID_RECORD as REFUSED,
        RD_KAFKA_RESP_ERR_NO_ERROR as TAKEN, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as LATER,
    };
    let (mock, config) = private_mock();
    // Nothing is to be given up here, however busy the machine is: each refusal is told as one.
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(30), ..config };
    let bus = KafkaBus::connect(config.clone()).unwrap();
    let published = events("file", &ids(5), 1..=10);
    mock.ask(|cluster| {
        let answers = [TAKEN, TAKEN, REFUSED, TAKEN, LATER, TAKEN, CONNECTION_LOST, TAKEN, TAKEN, REFUSED, REFUSED];
        cluster.request_errors(RDKafkaApiKey::Produce, &answers);
    });
    let mut errors = Vec::new();
    for event in &published {
        // One request at a time: the mock cluster takes what is on its way behind a refused one, for it looks at no sequence
        // numbers. That a broker does is shown with a real one.
        errors.extend(publish_all(&bus, std::slice::from_ref(event)).await);
    }
    assert_eq!(errors.iter().filter(|error| error.detail.contains("InvalidRecord")).count(), 3, "{errors:?}");
    assert!(errors.iter().all(|error| error.acknowledged == 0 && error.detail.contains(&topic(&config, "file"))));
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &published)).await.unwrap();
    assert_first_appearances_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_and_comes_back_leaves_no_hole() {
    let (mock, config) = private_mock();
    let bus = Arc::new(KafkaBus::connect(config.clone()).unwrap());
    let published = events("file", &ids(5), 1..=200);
    mock.ask(|cluster| cluster.broker_round_trip_time(-1, Duration::from_millis(50)).unwrap());
    let publishing = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move { publish_all(&bus, &published).await }
    });
    for _ in 0..2 {
        mock.ask(|cluster| cluster.broker_down(-1).unwrap());
        // Published or not: it was away for longer than a publication waits.
        tokio::time::sleep(config.delivery_timeout * 2).await;
        mock.ask(|cluster| cluster.broker_up(-1).unwrap());
    }
    let errors = publishing.await.unwrap();
    assert!(!errors.is_empty());
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &published)).await.unwrap();
    assert_first_appearances_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_a_real_broker_refuses_leaves_no_hole() {
    if shared_mock().is_some() {
        eprintln!("needs a real broker: the mock cluster has no limit for messages and no sequence numbers");
        return;
    }
    let mut config = KafkaConfig { partitions: 1, ..config() };
    set(&mut config, "batch.num.messages", "20");
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &config.bootstrap_servers).create().unwrap();
    let name = topic(&config, "file");
    let limited = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "30000");
    admin.create_topics(&[limited], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let bus = KafkaBus::connect(config.clone()).unwrap();
    let mut published = events("file", &ids(1), 1..=2_000);
    // It must not become small by compression.
    let noise = std::iter::repeat_with(Uuid::new_v4).take(2_500).flat_map(Uuid::into_bytes).collect::<Vec<_>>();
    published[1_000] = Arc::new(Envelope { payload: noise.into(), ..Envelope::clone(&published[1_000]) });
    for _ in 0..5 {
        let error = bus.publish(&published).await.unwrap_err();
        assert!((900..=1_000).contains(&error.acknowledged), "{error}");
    }
    // The last of them again as it should have been, so that the reader knows where to stop.
    let good = events("file", &[published[0].aggregate_id], 1..=2_000);
    bus.publish(&good).await.unwrap();
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &good)).await.unwrap();
    assert!(records.len() > 6_000, "{}", records.len());
    assert_first_appearances_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_holds_up_only_what_comes_after_it() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let mut published = events("file", &ids(1), 1..=3);
    let large = Envelope { payload: vec![0; 2_000_000].into(), ..Envelope::clone(&published[1]) };
    published[1] = Arc::new(large);
    let error = bus.publish(&published).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (1, 3));
    assert!(error.detail.contains(&topic(&config, "file")), "{error}");
    bus.publish(&events("file", &ids(1), 1..=3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever_for_a_broker_that_is_not_there() {
    let nobody = format!("127.0.0.1:{}", free_ports());
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..private(nobody) };
    let bus = Arc::new(KafkaBus::connect(config).unwrap());
    let consuming = Consuming::start(&bus, gate("nobody", &["file"]));
    let start = Instant::now();
    let error = bus.publish(&events("file", &ids(1), 1..=2)).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 2));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(bus.healthy().is_ok(), "a broker that is away is no reason to restart");
    let start = Instant::now();
    consuming.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn settings_that_do_not_exist_are_refused() {
    let mut config = KafkaConfig::new("localhost:1");
    set(&mut config, "no.such.setting", "1");
    let error = KafkaBus::connect(config).err().unwrap();
    assert!(
        matches!(&error, epoch_kafka::Error::Settings { source } if source.to_string().contains("no.such.setting"))
    );
}
