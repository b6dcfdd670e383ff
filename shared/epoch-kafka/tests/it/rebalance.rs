//! Several processes that share a subscription.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use epoch::{bus::Bus, gate::DeliverySource, handler::Subscription};
use epoch_kafka::KafkaConfig;
use futures::FutureExt;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    topic_partition_list::Offset,
};

use crate::support::*;

/// Returns the subscription of one process, which counts its events and delivers them to the shared gate.
fn process(gate: &Arc<Gate>, received: &Arc<AtomicUsize>) -> Arc<dyn Subscription> {
    let received = Arc::clone(received);
    wrap(gate, move |gate, events| {
        received.fetch_add(events.len(), Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            gate.deliver(events, DeliverySource::Bus).await
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_under_load_applies_each_event_once() {
    let config = KafkaConfig { partitions: 6, ..config() };
    let bus = bus_with(&config, &["file"]).await;
    let other_bus = Arc::new(epoch_kafka::KafkaBus::connect(config.clone()).unwrap());
    let (gate, ids) = (gate("rebalancing", &["file"]), ids(20));
    let [one, other, again] = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    let is_busy = |counter: &AtomicUsize| counter.load(Ordering::SeqCst) > 200;

    let first = ConsumerTask::start(&bus, process(&gate, &one));
    let mut first = Some(first);
    let (mut second, mut third) = (None, None);
    let mut published = Vec::new();
    let start = std::time::Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while !is_busy(&again) {
        assert!(start.elapsed() < 2 * LIMIT, "received: {one:?}, {other:?}, {again:?}");
        pace.tick().await;
        if published.len() > count(&gate) + 2_000 {
            // The mock cluster drops records that are more than a few thousand events old.
            continue;
        }
        let version = published.len() as u64 / ids.len() as u64 + 1;
        let batch = events("file", &ids, version..=version);
        bus.publish(&batch).await.unwrap();
        published.extend(batch);
        if second.is_none() && is_busy(&one) {
            second = Some(ConsumerTask::start(&other_bus, process(&gate, &other)));
        }
        if is_busy(&other)
            && let Some(first) = first.take()
        {
            first.stop().await.unwrap();
            third = Some(ConsumerTask::start(&bus, process(&gate, &again)));
        }
    }
    wait_for_events(&gate, published.len()).await;
    for consuming in [second, third].into_iter().flatten() {
        consuming.stop().await.unwrap();
    }
    assert_exactly_once(&received(&gate), &published);
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalances_every_second_neither_lose_nor_reorder() {
    /// The number of times that the second process joins or leaves.
    const REBALANCES: usize = 6;
    let config = KafkaConfig { partitions: 6, ..config() };
    let buses = [bus_with(&config, &["file"]).await, Arc::new(epoch_kafka::KafkaBus::connect(config.clone()).unwrap())];
    let (gate, ids) = (gate("restless", &["file"]), ids(20));
    // The events before the gate drops duplicates.
    let delivered = Arc::new(std::sync::Mutex::new(EventLog::new()));
    let member = || {
        let delivered = Arc::clone(&delivered);
        wrap(&gate, move |gate, events| {
            delivered.lock().unwrap().extend(events.iter().map(|event| (event.aggregate_id, event.version.get())));
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                gate.deliver(events, DeliverySource::Bus).await
            }
            .boxed()
        })
    };
    let staying = ConsumerTask::start(&buses[0], member());
    let mut second = None;
    let (mut published, mut rebalances) = (Vec::new(), 0);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    let mut rebalance = tokio::time::interval(Duration::from_secs(1));
    while rebalances < REBALANCES {
        tokio::select! {
            _ = rebalance.tick() => {
                rebalances += 1;
                second = match second.take() {
                    Some(leaving) => {
                        ConsumerTask::stop(leaving).await.unwrap();
                        None
                    }
                    None => Some(ConsumerTask::start(&buses[1], member())),
                };
            }
            // The mock cluster drops records that are more than a few thousand events old.
            _ = pace.tick(), if published.len() < count(&gate) + 2_000 => {
                let version = published.len() as u64 / ids.len() as u64 + 1;
                let batch = events("file", &ids, version..=version);
                buses[0].publish(&batch).await.unwrap();
                published.extend(batch);
            }
        }
    }
    wait_for_events(&gate, published.len()).await;
    for consuming in second.into_iter().chain([staying]) {
        consuming.stop().await.unwrap();
    }
    assert_exactly_once(&received(&gate), &published);
    let mut next = std::collections::HashMap::new();
    for (id, version) in delivered.lock().unwrap().iter() {
        let next = next.entry(*id).or_insert(1);
        assert!(version <= next, "version {version} of {id} arrived before {next}");
        *next = (*next).max(version + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_commits_the_delivered_offsets() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let gate = gate("committing", &["file"]);
    let published = events("file", &ids(30), 1..=10);
    bus.publish(&published).await.unwrap();
    let consuming = ConsumerTask::start(&bus, gate.clone());
    wait_for_events(&gate, published.len()).await;
    consuming.stop().await.unwrap();

    let observer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", config.group("committing"))
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&topic(&config, "file"), 0, config.partitions - 1);
    let committed = observer.committed_offsets(partitions, LIMIT).unwrap();
    let offsets = committed.elements().into_iter().map(|element| match element.offset() {
        Offset::Offset(offset) => usize::try_from(offset).unwrap(),
        _ => 0,
    });
    assert_eq!(offsets.sum::<usize>(), published.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_metric_counts_unprocessed_events() {
    let mut config = KafkaConfig { partitions: 1, ..config() };
    config.settings.insert("statistics.interval.ms".to_owned(), "200".to_owned());
    let bus = bus_with(&config, &["file"]).await;
    let labels = [("subscription", "lagging"), ("topic", &*topic(&config, "file")), ("partition", "0")];
    let lag = || metric("epoch_bus_lag_events", &labels);
    assert_eq!(lag(), None);
    bus.publish(&events("file", &ids(10), 1..=30)).await.unwrap();
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = gate("lagging", &["file"]);
    let subscription = wrap_with_permits(&gate, &permits);
    let consuming = ConsumerTask::start(&bus, subscription);
    wait_until("the lag is 300", || lag() == Some(300.0)).await;
    permits.add_permits(1_000);
    wait_until("the lag is 0", || lag() == Some(0.0)).await;
    consuming.stop().await.unwrap();
}
