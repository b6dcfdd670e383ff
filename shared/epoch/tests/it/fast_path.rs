//! The fast path is bounded, drops and counts events when full, and never causes a second application.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Envelope, FastPath, Position, Repository,
    bus::Bus,
    handler::EventHandler,
    memory::{MemoryBus, MemoryStore, MemorySubscription},
    store::Streamer,
    testkit::metrics,
};
use futures::TryStreamExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

/// A handler that needs one permit per batch and records applied versions.
struct ThrottledHandler {
    name: &'static str,
    permits: Semaphore,
    applied: watch::Sender<Vec<(Uuid, u64)>>,
}

impl ThrottledHandler {
    fn new(name: &'static str, permits: usize) -> Arc<MemorySubscription<Self>> {
        metrics::record();
        Arc::new(MemorySubscription::new(Self {
            name,
            permits: Semaphore::new(permits),
            applied: watch::Sender::default(),
        }))
    }

    fn versions(&self, id: Uuid) -> Vec<u64> {
        self.applied.borrow().iter().filter(|(applied, _)| *applied == id).map(|(_, version)| *version).collect()
    }
}

#[async_trait]
impl EventHandler<()> for ThrottledHandler {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Infallible> {
        self.permits.acquire().await.unwrap().forget();
        self.applied.send_modify(|applied| {
            applied.extend(events.iter().map(|event| (event.aggregate_id, event.version.get())));
        });
        Ok(())
    }
}

/// Returns `rounds` committed events of each counter, from a store without a fast path.
async fn committed(ids: &[Uuid], rounds: usize) -> Vec<Arc<Envelope>> {
    let store = MemoryStore::new();
    let counters = Repository::<Counter, _>::new(store.clone());
    for _ in 0..rounds {
        for id in ids {
            counters.execute(*id, &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
        }
    }
    store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_drops_events_and_bus_delivers_them() {
    /// More events than a subscription's queue and its current batch hold.
    const EVENTS: usize = 3_000;
    let (fast_path, bus, id) = (FastPath::new(), MemoryBus::new(), Uuid::now_v7());
    let subscription = ThrottledHandler::new("flooded", 0);
    let serving = tokio::spawn(fast_path.serve(subscription.clone()));
    let events = committed(&[id], EVENTS).await;
    let mut receipts = Vec::new();
    for event in &events {
        // Does not wait for slow subscriptions.
        receipts.push(fast_path.dispatch(&[Arc::clone(event)]));
    }
    let shed =
        metrics::value("epoch_delivered_total", &[("subscription", "flooded"), ("way", "local"), ("result", "shed")]);
    let taken = EVENTS as f64 - shed.unwrap_or_default();
    assert!((1_024.0..=1_024.0 + 64.0 * 2.0).contains(&taken), "queued and in flight: {taken}");
    bus.publish(&events).await.unwrap();
    let stop = CancellationToken::new();
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    subscription.handler().permits.add_permits(EVENTS);
    let mut applied = subscription.handler().applied.subscribe();
    tokio::time::timeout(Duration::from_secs(30), applied.wait_for(|applied| applied.len() >= EVENTS))
        .await
        .unwrap()
        .unwrap();
    stop.cancel();
    consuming.await.unwrap().unwrap();
    serving.abort();
    assert_eq!(subscription.handler().versions(id), (1..=EVENTS as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn event_applies_once_from_fast_path_and_bus() {
    let (fast_path, bus, stop) = (FastPath::new(), MemoryBus::new(), CancellationToken::new());
    let ids: Vec<_> = std::iter::repeat_with(Uuid::now_v7).take(5).collect();
    let subscription = ThrottledHandler::new("raced", usize::MAX >> 4);
    let serving = tokio::spawn(fast_path.serve(subscription.clone()));
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    let events = committed(&ids, 200).await;
    let dispatching = async {
        for event in &events {
            fast_path.dispatch(&[Arc::clone(event)]).wait(Duration::from_secs(1)).await;
        }
    };
    let publishing = async {
        for batch in events.chunks(7) {
            bus.publish(batch).await.unwrap();
            // Each batch is published twice.
            bus.publish(batch).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(dispatching, publishing);
    let mut applied = subscription.handler().applied.subscribe();
    applied.wait_for(|applied| applied.len() >= events.len()).await.unwrap();
    stop.cancel();
    consuming.await.unwrap().unwrap();
    serving.abort();
    for id in ids {
        assert_eq!(subscription.handler().versions(id), (1..=200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handler_delays_the_command_at_most_by_the_wait() {
    let (fast_path, id) = (FastPath::new(), Uuid::now_v7());
    let subscription = ThrottledHandler::new("late", 0);
    let serving = tokio::spawn(fast_path.serve(subscription));
    let events = committed(&[id], 1).await;
    let late = || metrics::value("epoch_local_late_total", &[]).unwrap_or_default();
    let before = late();
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, fast_path.dispatch(&events).wait(Duration::from_millis(20))).await.unwrap();
    assert_eq!(late() - before, 1.0);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn command_does_not_wait_for_unsubscribed_handlers() {
    let (fast_path, id) = (FastPath::new(), Uuid::now_v7());
    let other = ThrottledHandler::new("unsubscribed", 0);
    let serving = tokio::spawn(fast_path.serve(other.clone()));
    let events = committed(&[id], 1).await;
    let foreign = Envelope { aggregate: "elsewhere".into(), ..Envelope::clone(&events[0]) };
    let receipt = fast_path.dispatch(&[Arc::new(foreign)]);
    tokio::time::timeout(Duration::from_secs(20), receipt.wait(Duration::from_secs(60))).await.unwrap();
    assert!(other.handler().applied.borrow().is_empty());
    serving.abort();
}
