//! What a subscription gets, and what holds it up.

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

use epoch::{bus::Bus, gate::Way, handler::Subscription, message::Message};
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
async fn everything_arrives_and_each_aggregate_in_order() {
    let config = config();
    let bus = bus_with(&config, &["file", "job"]).await;
    let mut published = events("file", &ids(20), 1..=50);
    published.extend(events("job", &ids(20), 1..=50));
    let gate = gate("everything", &["file", "job"]);
    let consuming = Consuming::start(&bus, gate.clone());
    for batch in published.chunks(100) {
        bus.publish(batch).await.unwrap();
    }
    wait_for_events(&gate, published.len()).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_as_it_was() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let sent = event("file", ids(1)[0], 1);
    let arrived = Arc::new(std::sync::Mutex::new(Vec::new()));
    let subscription = around(&gate("as_it_was", &["file"]), {
        let arrived = Arc::clone(&arrived);
        move |gate, events| {
            arrived.lock().unwrap().extend(events.to_vec());
            gate.deliver(events, Way::Bus)
        }
    });
    let consuming = Consuming::start(&bus, subscription);
    bus.publish(&[Arc::clone(&sent)]).await.unwrap();
    wait_until("the event comes", || !arrived.lock().unwrap().is_empty()).await;
    consuming.stop().await.unwrap();
    assert_eq!(*arrived.lock().unwrap(), [sent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_gets_everything() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(10), 1..=20);
    let (one, other) = (gate("one", &["file"]), gate("other", &["file"]));
    let consuming = [Consuming::start(&bus, one.clone()), Consuming::start(&bus, other.clone())];
    bus.publish(&published).await.unwrap();
    for gate in [&one, &other] {
        wait_for_events(gate, published.len()).await;
        assert_exactly_once(&seen(gate), &published);
    }
    for consuming in consuming {
        consuming.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_gets_it_from_the_beginning() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(10), 1..=100);
    bus.publish(&published).await.unwrap();
    let gate = gate("late", &["file"]);
    let consuming = Consuming::start(&bus, gate.clone());
    wait_for_events(&gate, published.len()).await;
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_appear_later() {
    // The mock cluster doesn't let clients create topics.
    let (mock, consumed) = (MockBroker::start(), gate("early", &["file"]));
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..private(&mock.servers) };
    let bus = Arc::new(epoch_kafka::KafkaBus::connect(config.clone()).unwrap());
    let consuming = Consuming::start(&bus, consumed.clone());
    let missed =
        || metric("epoch_bus_client_faults_total", &[("client", "early"), ("fault", "UnknownTopicOrPartition")]);
    wait_until("the consumer misses the topic", || missed().is_some()).await;
    mock.create_topics(&config, &["file"]);
    let published = events("file", &ids(3), 1..=3);
    bus.publish(&published).await.unwrap();
    wait_for_events(&consumed, published.len()).await;
    consuming.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_comes_again() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(5), 1..=50);
    let (gate, calls) = (gate("refusing", &["file"]), Arc::new(AtomicUsize::new(0)));
    let subscription = around(&gate, {
        let calls = Arc::clone(&calls);
        move |gate, events| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move {
                match call % 3 {
                    0 => Err(not_now()),
                    // Applied, and the word of it lost.
                    1 => gate.deliver(events, Way::Bus).await.and(Err(not_now())),
                    _ => gate.deliver(events, Way::Bus).await,
                }
            }
            .boxed()
        }
    });
    let consuming = Consuming::start(&bus, subscription);
    bus.publish(&published).await.unwrap();
    wait_for_events(&gate, published.len()).await;
    assert!(bus.healthy().is_ok(), "who is refused is alive");
    consuming.stop().await.unwrap();
    assert_exactly_once(&seen(&gate), &published);
}

#[test]
fn what_was_applied_before_a_crash_is_not_applied_again() {
    let config = config();
    let gate = gate("crashing", &["file"]);
    let published = events("file", &ids(5), 1..=200);
    let (first, second) = published.split_at(published.len() / 2);
    let hung = Arc::new(AtomicBool::new(false));

    // The first process applies a batch and dies before it can say so: nothing of it is committed.
    let process = tokio::runtime::Runtime::new().unwrap();
    let bus = process.block_on(async {
        let bus = bus_with(&config, &["file"]).await;
        let subscription = around(&gate, {
            let hung = Arc::clone(&hung);
            move |gate, events| {
                let hung = Arc::clone(&hung);
                async move {
                    gate.deliver(events, Way::Bus).await?;
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
    assert!(!seen(&gate).is_empty());

    let duplicates = Arc::new(AtomicUsize::new(0));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bus = bus_with(&config, &["file"]).await;
        let subscription = around(&gate, {
            let duplicates = Arc::clone(&duplicates);
            move |gate, events| {
                let duplicates = Arc::clone(&duplicates);
                async move {
                    let delivered = gate.deliver(events, Way::Bus).await?;
                    duplicates.fetch_add(delivered.duplicate, Ordering::SeqCst);
                    Ok(delivered)
                }
                .boxed()
            }
        });
        let consuming = Consuming::start(&bus, subscription);
        bus.publish(second).await.unwrap();
        wait_for_events(&gate, published.len()).await;
        consuming.stop().await.unwrap();
    });
    assert_exactly_once(&seen(&gate), &published);
    assert!(duplicates.load(Ordering::SeqCst) > 0, "the batch came again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscription_holds_back_the_broker_and_not_the_memory() {
    /// The partition's queue, the batch in hand, and the one event there was no room for.
    const BOUND: f64 = 4_501.0;
    let config = KafkaConfig { partitions: 1, ..config() };
    let bus = bus_with(&config, &["file"]).await;
    let (gate, permits) = (gate("slow", &["file"]), Arc::new(Semaphore::new(0)));
    let subscription = around(&gate, {
        let permits = Arc::clone(&permits);
        move |gate, events| {
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.unwrap().forget();
                gate.deliver(events, Way::Bus).await
            }
            .boxed()
        }
    });
    let unfinished = || metric("epoch_bus_unfinished_events", &[("subscription", "slow")]).unwrap_or_default();
    unfinished();
    let consuming = Consuming::start(&bus, subscription);
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
    assert_exactly_once(&seen(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_message_is_counted_and_passed_over() {
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
    // An event in the wrong topic.
    let (job, headers) = (Message::of(&event("job", id, 1), &config.namespace), OwnedHeaders::new());
    let headers =
        job.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    stray.send(FutureRecord::to(&topic).key(&key).payload(&job.body[..]).headers(headers), LIMIT).await.unwrap();
    // A header whose name isn't UTF-8, which our own client can't write.
    let kcat = header_without_name(&config.bootstrap_servers, &topic);
    if !kcat {
        eprintln!("no kcat: no header with a broken name");
    }
    bus.publish(&events("file", &[id], 2..=3)).await.unwrap();
    let gate = gate("stray", &["file"]);
    let consuming = Consuming::start(&bus, gate.clone());
    wait_for_events(&gate, 3).await;
    wait_until("all strays are counted", || unreadable() == Some(if kcat { 4.0 } else { 3.0 })).await;
    consuming.stop().await.unwrap();
    assert_eq!(seen(&gate), [(id, 1), (id, 2), (id, 3)]);
}

fn header_without_name(servers: &str, topic: &str) -> bool {
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", servers, "-t", topic, "-H"]).arg(OsStr::from_bytes(b"\xff=1"));
    let Ok(mut kcat) = kcat.stdin(Stdio::piped()).spawn() else { return false };
    kcat.stdin.take().unwrap().write_all(b"hello, world\n").unwrap();
    kcat.wait().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_reported_and_let_go_of() {
    let quick = Duration::from_millis(500);
    let config = KafkaConfig { stuck_after: quick, drain_timeout: quick, ..config() };
    let bus = bus_with(&config, &["file"]).await;
    let subscription = around(&gate("hanging", &["file"]), |_, _| futures::future::pending().boxed());
    let consuming = Consuming::start(&bus, subscription);
    assert!(bus.healthy().is_ok(), "it has nothing to do");
    bus.publish(&events("file", &ids(1), 1..=1)).await.unwrap();
    wait_until("it is stuck", || bus.healthy().is_err()).await;
    let unhealthy = bus.healthy().unwrap_err();
    assert_eq!(unhealthy.subscription, "hanging");
    assert!(unhealthy.detail.contains(&topic(&config, "file")), "{unhealthy}");
    consuming.stop().await.unwrap();
    assert!(bus.healthy().is_ok(), "nobody consumes any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_ends_the_consumer() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let subscription = around(&gate("panicking", &["file"]), |_, _| panic!("as the test wants it"));
    let consuming = Consuming::start(&bus, subscription);
    bus.publish(&events("file", &ids(1), 1..=1)).await.unwrap();
    let error = consuming.end().await.unwrap_err();
    assert!(error.detail.contains("partition") && error.detail.contains("offset 0"), "{error}");
    assert!(bus.healthy().is_err(), "until it is consumed again");
    let consuming = Consuming::start(&bus, gate("panicking", &["file"]));
    wait_until("it is consumed again", || bus.healthy().is_ok()).await;
    consuming.stop().await.unwrap();
}
