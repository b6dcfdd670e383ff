//! The in-memory store and bus.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, FastPath, Position, Repository,
    bus::Bus,
    gate::DeliverySource,
    handler::{DeliveryCounts, EventHandler, Subscription},
    memory::{MemoryBus, MemoryStore, MemorySubscription},
    store::Streamer,
    testkit::store_conformance,
};
use futures::TryStreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

#[tokio::test]
async fn memory_store_conforms() {
    store_conformance(&MemoryStore::new()).await.unwrap();
}

/// A handler that records the received versions.
struct VersionRecorder {
    versions: Mutex<Vec<(Uuid, u64)>>,
    count: watch::Sender<usize>,
}

impl VersionRecorder {
    fn new() -> Self {
        Self { versions: Mutex::default(), count: watch::channel(0).0 }
    }

    fn versions_of(&self, id: Uuid) -> Vec<u64> {
        self.versions.lock().unwrap().iter().filter(|(stream, _)| *stream == id).map(|(_, version)| *version).collect()
    }
}

#[async_trait]
impl EventHandler<()> for VersionRecorder {
    type Error = std::convert::Infallible;

    fn name(&self) -> &'static str {
        "versions"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Self::Error> {
        let mut versions = self.versions.lock().unwrap();
        versions.extend(events.iter().map(|event| (event.aggregate_id, event.version.get())));
        self.count.send_replace(versions.len());
        Ok(())
    }
}

#[tokio::test]
async fn fast_path_applies_before_return_and_bus_copy_is_dropped() {
    let fast_path = FastPath::new();
    let subscription = Arc::new(MemorySubscription::new(VersionRecorder::new()));
    let serving = tokio::spawn(fast_path.serve(subscription.clone()));
    let store = MemoryStore::with_fast_path(fast_path.clone());
    let counters = Repository::<Counter, _>::new(store.clone());
    let id = Uuid::now_v7();
    for version in 1..=5 {
        counters.execute(id, &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
        assert_eq!(subscription.handler().versions_of(id), (1..=version).collect::<Vec<_>>());
    }
    let events: Vec<_> = store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    let copies = subscription.deliver(&events, DeliverySource::Bus).await.unwrap();
    assert_eq!(copies, DeliveryCounts { duplicate: 5, ..DeliveryCounts::default() });
    serving.abort();
}

#[tokio::test]
async fn late_subscriber_receives_all_events() {
    let (store, bus, stop) = (MemoryStore::new(), MemoryBus::new(), CancellationToken::new());
    let counters = Repository::<Counter, _>::new(store.clone());
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for round in 0..600 {
        counters.execute(ids[round % 2], &CounterCommand::Look, &CommandContext::new()).await.unwrap();
    }
    let events: Vec<_> = store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    bus.publish(&events[..400]).await.unwrap();
    let subscription = Arc::new(MemorySubscription::new(VersionRecorder::new()));
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    // Events 300 to 399 are published twice.
    bus.publish(&events[300..]).await.unwrap();
    let mut count = subscription.handler().count.subscribe();
    count.wait_for(|count| *count == 600).await.unwrap();
    for id in ids {
        assert_eq!(subscription.handler().versions_of(id), (1..=300).collect::<Vec<_>>());
    }
    stop.cancel();
    consuming.await.unwrap().unwrap();
}
