//! The local way: bounded, shedding, counted; a copy never applies twice.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Envelope, Position, Repository,
    bus::Bus,
    handler::EventHandler,
    local::LocalBus,
    memory::{MemoryBus, MemoryStore, MemorySubscription},
    store::Streamer,
    testkit::metrics,
};
use futures::TryStreamExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

/// Takes a batch when it is given a permit, and remembers what it took.
struct Slow {
    name: &'static str,
    permits: Semaphore,
    seen: watch::Sender<Vec<(Uuid, u64)>>,
}

impl Slow {
    fn new(name: &'static str, permits: usize) -> Arc<MemorySubscription<Self>> {
        metrics::record();
        Arc::new(MemorySubscription::new(Self {
            name,
            permits: Semaphore::new(permits),
            seen: watch::Sender::default(),
        }))
    }

    fn versions(&self, id: Uuid) -> Vec<u64> {
        self.seen.borrow().iter().filter(|(seen, _)| *seen == id).map(|(_, version)| *version).collect()
    }
}

#[async_trait]
impl EventHandler<()> for Slow {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Infallible> {
        self.permits.acquire().await.unwrap().forget();
        self.seen.send_modify(|seen| {
            seen.extend(events.iter().map(|event| (event.aggregate_id, event.version.get())));
        });
        Ok(())
    }
}

/// So many events of some counters, in a store that hands nothing over.
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
async fn a_full_queue_sheds_and_counts_and_the_bus_brings_what_it_shed() {
    /// More than a subscription's queue holds, with the batch in its hands.
    const EVENTS: usize = 3_000;
    let (local, bus, id) = (LocalBus::new(), MemoryBus::new(), Uuid::now_v7());
    let subscription = Slow::new("flooded", 0);
    let serving = tokio::spawn(local.serve(subscription.clone()));
    let events = committed(&[id], EVENTS).await;
    let mut receipts = Vec::new();
    for event in &events {
        // It doesn't wait, whoever is slow.
        receipts.push(local.committed(&[Arc::clone(event)]));
    }
    let shed =
        metrics::value("epoch_delivered_total", &[("subscription", "flooded"), ("way", "local"), ("result", "shed")]);
    let taken = EVENTS as f64 - shed.unwrap_or_default();
    assert!((1_024.0..=1_024.0 + 64.0 * 2.0).contains(&taken), "the queue and what is in hand: {taken}");
    bus.publish(&events).await.unwrap();
    let stop = CancellationToken::new();
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    subscription.handler().permits.add_permits(EVENTS);
    let mut seen = subscription.handler().seen.subscribe();
    tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|seen| seen.len() >= EVENTS)).await.unwrap().unwrap();
    stop.cancel();
    consuming.await.unwrap().unwrap();
    serving.abort();
    assert_eq!(subscription.handler().versions(id), (1..=EVENTS as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_never_applies_twice_whichever_way_is_first() {
    let (local, bus, stop) = (LocalBus::new(), MemoryBus::new(), CancellationToken::new());
    let ids: Vec<_> = std::iter::repeat_with(Uuid::now_v7).take(5).collect();
    let subscription = Slow::new("raced", usize::MAX >> 4);
    let serving = tokio::spawn(local.serve(subscription.clone()));
    let consuming = tokio::spawn({
        let (bus, subscription, stop) = (bus.clone(), subscription.clone(), stop.clone());
        async move { bus.consume(subscription, stop).await }
    });
    let events = committed(&ids, 200).await;
    let handing_over = async {
        for event in &events {
            local.committed(&[Arc::clone(event)]).wait(Duration::from_secs(1)).await;
        }
    };
    let publishing = async {
        for batch in events.chunks(7) {
            bus.publish(batch).await.unwrap();
            // Each twice.
            bus.publish(batch).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(handing_over, publishing);
    let mut seen = subscription.handler().seen.subscribe();
    seen.wait_for(|seen| seen.len() >= events.len()).await.unwrap();
    stop.cancel();
    consuming.await.unwrap().unwrap();
    serving.abort();
    for id in ids {
        assert_eq!(subscription.handler().versions(id), (1..=200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handler_does_not_hold_up_the_command_for_long() {
    let (local, id) = (LocalBus::new(), Uuid::now_v7());
    let subscription = Slow::new("late", 0);
    let serving = tokio::spawn(local.serve(subscription));
    let events = committed(&[id], 1).await;
    let late = || metrics::value("epoch_local_late_total", &[]).unwrap_or_default();
    let before = late();
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, local.committed(&events).wait(Duration::from_millis(20))).await.unwrap();
    assert_eq!(late() - before, 1.0);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_listen_to_an_aggregate_is_not_waited_for() {
    let (local, id) = (LocalBus::new(), Uuid::now_v7());
    let other = Slow::new("indifferent", 0);
    let serving = tokio::spawn(local.serve(other.clone()));
    let events = committed(&[id], 1).await;
    let elsewhere = Envelope { aggregate: "elsewhere".into(), ..Envelope::clone(&events[0]) };
    let receipt = local.committed(&[Arc::new(elsewhere)]);
    tokio::time::timeout(Duration::from_secs(20), receipt.wait(Duration::from_secs(60))).await.unwrap();
    assert!(other.handler().seen.borrow().is_empty());
    serving.abort();
}
