//! The store and the bus in memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Position, Repository,
    bus::Bus,
    gate::Way,
    handler::{Delivered, EventHandler, Subscription},
    local::LocalBus,
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
async fn the_store_keeps_what_every_store_promises() {
    store_conformance(&MemoryStore::new()).await.unwrap();
}

/// Remembers what it was given.
struct Seen {
    versions: Mutex<Vec<(Uuid, u64)>>,
    count: watch::Sender<usize>,
}

impl Seen {
    fn new() -> Self {
        Self { versions: Mutex::default(), count: watch::channel(0).0 }
    }

    fn of(&self, id: Uuid) -> Vec<u64> {
        self.versions.lock().unwrap().iter().filter(|(seen, _)| *seen == id).map(|(_, version)| *version).collect()
    }
}

#[async_trait]
impl EventHandler<()> for Seen {
    type Error = std::convert::Infallible;

    fn name(&self) -> &'static str {
        "seen"
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
async fn handlers_in_the_process_have_an_event_before_the_command_answers_and_the_copy_is_dropped() {
    let local = LocalBus::new();
    let subscription = Arc::new(MemorySubscription::new(Seen::new()));
    let serving = tokio::spawn(local.serve(subscription.clone()));
    let store = MemoryStore::with_local(local.clone());
    let counters = Repository::<Counter, _>::new(store.clone());
    let id = Uuid::now_v7();
    for version in 1..=5 {
        counters.execute(id, &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
        assert_eq!(subscription.handler().of(id), (1..=version).collect::<Vec<_>>());
    }
    let events: Vec<_> = store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    let copies = subscription.deliver(&events, Way::Bus).await.unwrap();
    assert_eq!(copies, Delivered { duplicate: 5, ..Delivered::default() });
    serving.abort();
}

#[tokio::test]
async fn the_bus_brings_everything_to_late_subscribers_too() {
    let (store, bus, stop) = (MemoryStore::new(), MemoryBus::new(), CancellationToken::new());
    let counters = Repository::<Counter, _>::new(store.clone());
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for round in 0..600 {
        counters.execute(ids[round % 2], &CounterCommand::Look, &CommandContext::new()).await.unwrap();
    }
    let events: Vec<_> = store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    bus.publish(&events[..400]).await.unwrap();
    let subscription = Arc::new(MemorySubscription::new(Seen::new()));
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    // Some of it twice.
    bus.publish(&events[300..]).await.unwrap();
    let mut count = subscription.handler().count.subscribe();
    count.wait_for(|count| *count == 600).await.unwrap();
    for id in ids {
        assert_eq!(subscription.handler().of(id), (1..=300).collect::<Vec<_>>());
    }
    stop.cancel();
    consuming.await.unwrap().unwrap();
}
