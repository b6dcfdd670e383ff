//! The content of topics after failed publications.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::testkit::free_ports;
use epoch::{bus::Bus, envelope::Envelope};
use epoch_kafka::{KafkaBus, KafkaConfig};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    message::Headers,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use uuid::Uuid;

use crate::{framing_suite::publish_all, support::*};

/// Reads a topic of one partition up to the last event of every aggregate. Returns key and version of each record.
fn read_topic(config: &KafkaConfig, events: &[Arc<Envelope>]) -> Vec<(String, u64)> {
    let mut missing: HashMap<_, _> = events.iter().map(|event| (event.aggregate_id, event.version.get())).collect();
    let consumer = read_from_start(config, &topic(config, "file"));
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

/// Asserts that the first occurrences are gapless and in order. Duplicates are allowed.
fn assert_first_occurrences_in_order(records: &[(String, u64)]) {
    let mut highest: HashMap<&str, u64> = HashMap::new();
    for (key, version) in records {
        let highest = highest.entry(key).or_default();
        assert!(*version <= *highest + 1, "{key}: {version} follows {highest}");
        *highest = (*highest).max(*version);
    }
}

fn set(config: &mut KafkaConfig, name: &str, value: &str) {
    config.settings.insert(name.to_owned(), value.to_owned());
}

/// Starts a mock cluster with one partition. Small batches let tests choose the response to each of them.
fn private_mock() -> (MockBroker, KafkaConfig) {
    let mock = MockBroker::start();
    let mut config = KafkaConfig { partitions: 1, delivery_timeout: Duration::from_secs(1), ..private(&mock.servers) };
    set(&mut config, "batch.num.messages", "20");
    // Unlike a real broker, the mock cluster ignores sequence numbers and would accept a batch in flight after a refused one.
    set(&mut config, "max.in.flight.requests.per.connection", "1");
    mock.create_topics(&config, &["file"]);
    (mock, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_event_leaves_no_gap() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__TRANSPORT as CONNECTION_LOST, RD_KAFKA_RESP_ERR_INVALID_RECORD as REFUSED,
        RD_KAFKA_RESP_ERR_NO_ERROR as ACCEPTED, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER,
    };
    let (mock, config) = private_mock();
    // A long time limit: on a busy machine, each refusal must be reported as a refusal and not as a timeout.
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(30), ..config };
    let bus = KafkaBus::connect(config.clone()).unwrap();
    let published = events("file", &ids(5), 1..=10);
    mock.run(|cluster| {
        let responses = [
            ACCEPTED,
            ACCEPTED,
            REFUSED,
            ACCEPTED,
            NOT_LEADER,
            ACCEPTED,
            CONNECTION_LOST,
            ACCEPTED,
            ACCEPTED,
            REFUSED,
            REFUSED,
        ];
        cluster.request_errors(RDKafkaApiKey::Produce, &responses);
    });
    let mut errors = Vec::new();
    for event in &published {
        // One request at a time, because the mock cluster ignores sequence numbers. Another test covers them with a real broker.
        errors.extend(publish_all(&bus, std::slice::from_ref(event)).await);
    }
    assert_eq!(errors.iter().filter(|error| error.detail.contains("InvalidRecord")).count(), 3, "{errors:?}");
    assert!(errors.iter().all(|error| error.acknowledged == 0 && error.detail.contains(&topic(&config, "file"))));
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &published)).await.unwrap();
    assert_first_occurrences_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_outage_leaves_no_gap() {
    let (mock, config) = private_mock();
    let bus = Arc::new(KafkaBus::connect(config.clone()).unwrap());
    let published = events("file", &ids(5), 1..=200);
    mock.run(|cluster| cluster.broker_round_trip_time(-1, Duration::from_millis(50)).unwrap());
    let publishing = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move { publish_all(&*bus, &published).await }
    });
    for _ in 0..2 {
        mock.run(|cluster| cluster.broker_down(-1).unwrap());
        // An outage that is longer than the time limit of a publication.
        tokio::time::sleep(config.delivery_timeout * 2).await;
        mock.run(|cluster| cluster.broker_up(-1).unwrap());
    }
    let errors = publishing.await.unwrap();
    assert!(!errors.is_empty());
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &published)).await.unwrap();
    assert_first_occurrences_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_refused_by_a_real_broker_leaves_no_gap() {
    if shared_mock().is_some() {
        eprintln!("needs a real broker: the mock cluster has neither a message size limit nor sequence numbers");
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
    // Random bytes, because compression must not make the event small.
    let noise = std::iter::repeat_with(Uuid::new_v4).take(2_500).flat_map(Uuid::into_bytes).collect::<Vec<_>>();
    published[1_000] = Arc::new(Envelope { payload: noise.into(), ..Envelope::clone(&published[1_000]) });
    for _ in 0..5 {
        let error = bus.publish(&published).await.unwrap_err();
        assert!((900..=1_000).contains(&error.acknowledged), "{error}");
    }
    // Publishes valid events at last, so that the reader finds the last version.
    let good = events("file", &[published[0].aggregate_id], 1..=2_000);
    bus.publish(&good).await.unwrap();
    let records = tokio::task::spawn_blocking(move || read_topic(&config, &good)).await.unwrap();
    assert!(records.len() > 6_000, "{}", records.len());
    assert_first_occurrences_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_event_blocks_only_later_events() {
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
async fn publish_and_stop_are_bounded_without_a_broker() {
    let no_broker = format!("127.0.0.1:{}", free_ports());
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..private(no_broker) };
    let bus = Arc::new(KafkaBus::connect(config).unwrap());
    let consuming = ConsumerTask::start(&bus, gate("unreachable", &["file"]));
    let start = Instant::now();
    let error = bus.publish(&events("file", &ids(1), 1..=2)).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 2));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(bus.healthy().is_ok(), "a broker outage does not require a restart");
    let start = Instant::now();
    consuming.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn connect_rejects_unknown_settings() {
    let mut config = KafkaConfig::new("localhost:1");
    set(&mut config, "no.such.setting", "1");
    let error = KafkaBus::connect(config).err().unwrap();
    assert!(
        matches!(&error, epoch_kafka::Error::Settings { source } if source.to_string().contains("no.such.setting"))
    );
}
