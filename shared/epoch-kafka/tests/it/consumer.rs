//! Delivery to subscriptions: completeness, retries, backpressure and unreadable records.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use epoch::{bus::Bus, gate::DeliverySource, handler::Subscription, message::Message};
use epoch_kafka::KafkaConfig;
use futures::FutureExt;
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::Semaphore;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn consumer_receives_every_aggregate_in_order() {
    let config = config();
    let bus = bus_with(&config, &["file", "job"]).await;
    let mut published = events("file", &ids(20), 1..=50);
    published.extend(events("job", &ids(20), 1..=50));
    let gate = gate("everything", &["file", "job"]);
    let consuming = ConsumerTask::start(&bus, gate.clone());
    for batch in published.chunks(100) {
        bus.publish(batch).await.unwrap();
    }
    wait_for_events(&gate, published.len()).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&received(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_receives_events_unchanged() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let sent = event("file", ids(1)[0], 1);
    let arrived = Arc::new(std::sync::Mutex::new(Vec::new()));
    let subscription = wrap(&gate("as_it_was", &["file"]), {
        let arrived = Arc::clone(&arrived);
        move |gate, events| {
            arrived.lock().unwrap().extend(events.to_vec());
            gate.deliver(events, DeliverySource::Bus)
        }
    });
    let consuming = ConsumerTask::start(&bus, subscription);
    bus.publish(&[Arc::clone(&sent)]).await.unwrap();
    wait_until("the event arrives", || !arrived.lock().unwrap().is_empty()).await;
    consuming.stop().await.unwrap();
    assert_eq!(*arrived.lock().unwrap(), [sent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_receives_all_events() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(10), 1..=20);
    let (one, other) = (gate("one", &["file"]), gate("other", &["file"]));
    let consuming = [ConsumerTask::start(&bus, one.clone()), ConsumerTask::start(&bus, other.clone())];
    bus.publish(&published).await.unwrap();
    for gate in [&one, &other] {
        wait_for_events(gate, published.len()).await;
        assert_exactly_once(&received(gate), &published);
    }
    for consuming in consuming {
        consuming.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_subscription_starts_at_the_beginning() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(10), 1..=100);
    bus.publish(&published).await.unwrap();
    let gate = gate("late", &["file"]);
    let consuming = ConsumerTask::start(&bus, gate.clone());
    wait_for_events(&gate, published.len()).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&received(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_finds_a_topic_that_is_created_later() {
    // In the mock cluster, clients cannot create topics.
    let (mock, consumed) = (MockBroker::start(), gate("early", &["file"]));
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..private(&mock.servers) };
    let bus = Arc::new(epoch_kafka::KafkaBus::connect(config.clone()).unwrap());
    let consuming = ConsumerTask::start(&bus, consumed.clone());
    let missing_topic =
        || metric("epoch_bus_client_faults_total", &[("client", "early"), ("fault", "UnknownTopicOrPartition")]);
    wait_until("the consumer reports the missing topic", || missing_topic().is_some()).await;
    mock.create_topics(&config, &["file"]);
    let published = events("file", &ids(3), 1..=3);
    bus.publish(&published).await.unwrap();
    wait_for_events(&consumed, published.len()).await;
    consuming.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_delivers_a_refused_batch_again() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(5), 1..=50);
    let (gate, calls) = (gate("refusing", &["file"]), Arc::new(AtomicUsize::new(0)));
    let subscription = wrap(&gate, {
        let calls = Arc::clone(&calls);
        move |gate, events| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move {
                match call % 3 {
                    0 => Err(retry_later()),
                    // Applied, but the result is lost.
                    1 => gate.deliver(events, DeliverySource::Bus).await.and(Err(retry_later())),
                    _ => gate.deliver(events, DeliverySource::Bus).await,
                }
            }
            .boxed()
        }
    });
    let consuming = ConsumerTask::start(&bus, subscription);
    bus.publish(&published).await.unwrap();
    wait_for_events(&gate, published.len()).await;
    assert!(bus.healthy().is_ok(), "a consumer that retries is healthy");
    consuming.stop().await.unwrap();
    assert_exactly_once(&received(&gate), &published);
}

#[test]
fn batch_applied_before_a_crash_is_not_applied_again() {
    let config = config();
    let gate = gate("crashing", &["file"]);
    let published = events("file", &ids(5), 1..=200);
    let (first, second) = published.split_at(published.len() / 2);
    let hung = Arc::new(AtomicBool::new(false));

    // The first process applies a batch and dies before it commits the offsets.
    let process = tokio::runtime::Runtime::new().unwrap();
    let bus = process.block_on(async {
        let bus = bus_with(&config, &["file"]).await;
        let subscription = wrap(&gate, {
            let hung = Arc::clone(&hung);
            move |gate, events| {
                let hung = Arc::clone(&hung);
                async move {
                    gate.deliver(events, DeliverySource::Bus).await?;
                    hung.store(true, Ordering::SeqCst);
                    futures::future::pending().await
                }
                .boxed()
            }
        });
        let consumer = Arc::clone(&bus);
        tokio::spawn(async move { consumer.consume(subscription, Default::default()).await });
        bus.publish(first).await.unwrap();
        wait_until("a batch was applied", || hung.load(Ordering::SeqCst)).await;
        bus
    });
    process.shutdown_background();
    drop(bus);
    assert!(!received(&gate).is_empty());

    let duplicates = Arc::new(AtomicUsize::new(0));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bus = bus_with(&config, &["file"]).await;
        let subscription = wrap(&gate, {
            let duplicates = Arc::clone(&duplicates);
            move |gate, events| {
                let duplicates = Arc::clone(&duplicates);
                async move {
                    let delivered = gate.deliver(events, DeliverySource::Bus).await?;
                    duplicates.fetch_add(delivered.duplicate, Ordering::SeqCst);
                    Ok(delivered)
                }
                .boxed()
            }
        });
        let consuming = ConsumerTask::start(&bus, subscription);
        bus.publish(second).await.unwrap();
        wait_for_events(&gate, published.len()).await;
        consuming.stop().await.unwrap();
    });
    assert_exactly_once(&received(&gate), &published);
    assert!(duplicates.load(Ordering::SeqCst) > 0, "the batch is delivered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_subscription_has_bounded_memory() {
    /// The capacity of the partition's queue, plus one batch in progress, plus one event in the overflow.
    const BOUND: f64 = 4_501.0;
    let config = KafkaConfig { partitions: 1, ..config() };
    let bus = bus_with(&config, &["file"]).await;
    let (gate, permits) = (gate("slow", &["file"]), Arc::new(Semaphore::new(0)));
    let subscription = wrap_with_permits(&gate, &permits);
    let unfinished = || metric("epoch_bus_unfinished_events", &[("subscription", "slow")]).unwrap_or_default();
    unfinished();
    let consuming = ConsumerTask::start(&bus, subscription);
    let published = events("file", &ids(10), 1..=1_000);
    for batch in published.chunks(1_000) {
        bus.publish(batch).await.unwrap();
    }
    wait_until("the queue is full", || unfinished() > 4_000.0).await;
    while count(&gate) < published.len() {
        let before = count(&gate);
        permits.add_permits(1);
        wait_until("a batch is done", || count(&gate) > before).await;
        assert!(unfinished() <= BOUND, "{} events in memory", unfinished());
        assert!(bus.healthy().is_ok());
    }
    consuming.stop().await.unwrap();
    assert_exactly_once(&received(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_counts_and_skips_unreadable_records() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let (id, topic) = (ids(1)[0], topic(&config, "file"));
    let unreadable = || metric("epoch_unreadable_total", &[("subscription", "stray"), ("topic", &topic)]);
    assert_eq!(unreadable(), None);
    bus.publish(&events("file", &[id], 1..=1)).await.unwrap();
    let stray: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let key = id.to_string();
    stray.send(FutureRecord::to(&topic).key(&key).payload("hello, world"), LIMIT).await.unwrap();
    stray.send(FutureRecord::<_, str>::to(&topic).key(&key), LIMIT).await.unwrap();
    // An event of another aggregate.
    let (job, headers) = (Message::of(&event("job", id, 1), &config.namespace), OwnedHeaders::new());
    let headers =
        job.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    stray.send(FutureRecord::to(&topic).key(&key).payload(&job.body[..]).headers(headers), LIMIT).await.unwrap();
    // A header name that is not UTF-8, which rdkafka cannot write.
    let kcat = publish_invalid_header(&config.bootstrap_servers, &topic);
    if !kcat {
        eprintln!("kcat is not installed: the invalid header name is not tested");
    }
    bus.publish(&events("file", &[id], 2..=3)).await.unwrap();
    let gate = gate("stray", &["file"]);
    let consuming = ConsumerTask::start(&bus, gate.clone());
    wait_for_events(&gate, 3).await;
    wait_until("all unreadable records are counted", || unreadable() == Some(if kcat { 4.0 } else { 3.0 })).await;
    consuming.stop().await.unwrap();
    assert_eq!(received(&gate), [(id, 1), (id, 2), (id, 3)]);
}

/// Publishes a record with an invalid header name. Returns `false` if `kcat` is not installed.
fn publish_invalid_header(servers: &str, topic: &str) -> bool {
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", servers, "-t", topic, "-H"]).arg(OsStr::from_bytes(b"\xff=1"));
    let Ok(mut kcat) = kcat.stdin(Stdio::piped()).spawn() else { return false };
    kcat.stdin.take().unwrap().write_all(b"hello, world\n").unwrap();
    kcat.wait().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_handler_is_reported_and_aborted() {
    let quick = Duration::from_millis(500);
    let config = KafkaConfig { stuck_after: quick, drain_timeout: quick, ..config() };
    let bus = bus_with(&config, &["file"]).await;
    let subscription = wrap(&gate("hanging", &["file"]), |_, _| futures::future::pending().boxed());
    let consuming = ConsumerTask::start(&bus, subscription);
    assert!(bus.healthy().is_ok(), "an idle consumer is healthy");
    bus.publish(&events("file", &ids(1), 1..=1)).await.unwrap();
    wait_until("the consumer is unhealthy", || bus.healthy().is_err()).await;
    let unhealthy = bus.healthy().unwrap_err();
    assert_eq!(unhealthy.subscription, "hanging");
    assert!(unhealthy.detail.contains(&topic(&config, "file")), "{unhealthy}");
    consuming.stop().await.unwrap();
    assert!(bus.healthy().is_ok(), "a stopped consumer is not reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn panicking_handler_ends_the_consumer() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let subscription = wrap(&gate("panicking", &["file"]), |_, _| panic!("intended by the test"));
    let consuming = ConsumerTask::start(&bus, subscription);
    bus.publish(&events("file", &ids(1), 1..=1)).await.unwrap();
    let error = consuming.end().await.unwrap_err();
    assert!(error.detail.contains("partition") && error.detail.contains("offset 0"), "{error}");
    assert!(bus.healthy().is_err(), "a failed consumer is reported until its subscription is consumed again");
    let consuming = ConsumerTask::start(&bus, gate("panicking", &["file"]));
    wait_until("the subscription is consumed again", || bus.healthy().is_ok()).await;
    consuming.stop().await.unwrap();
}
