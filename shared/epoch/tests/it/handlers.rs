//! Handlers: one event at a time, and never on the local way against their will.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Envelope, Position, Repository,
    gate::Way,
    handler::{Delivered, Each, EachEvent, EventHandler, Subscription},
    local::LocalBus,
    memory::{MemoryStore, MemorySubscription},
    store::Streamer,
};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

/// Notes versions in its "transaction", and fails at one.
struct Notes {
    fails_at: u64,
    handled: AtomicU32,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("not {0}")]
struct Not(u64);

#[async_trait]
impl EachEvent<Vec<u64>> for Notes {
    type Error = Not;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    fn locally(&self) -> bool {
        false
    }

    fn tables(&self) -> &'static [&'static str] {
        &["notes"]
    }

    fn also_writes(&self) -> &'static [&'static str] {
        &["sums"]
    }

    fn revision(&self) -> u32 {
        7
    }

    async fn handle_one(&self, tx: &mut Vec<u64>, event: &Envelope) -> Result<(), Not> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        let version = event.version.get();
        if version == self.fails_at {
            return Err(Not(version));
        }
        tx.push(version);
        Ok(())
    }
}

async fn committed(rounds: u32) -> Vec<Arc<Envelope>> {
    let store = MemoryStore::new();
    let counters = Repository::<Counter, _>::new(store.clone());
    let id = Uuid::now_v7();
    for _ in 0..rounds {
        counters.execute(id, &CounterCommand::Look, &CommandContext::new()).await.unwrap();
    }
    store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
}

#[tokio::test]
async fn each_hands_over_event_by_event_and_ends_at_the_first_that_fails() {
    let events = committed(5).await;
    let each = |fails_at| Each(Notes { fails_at, handled: AtomicU32::new(0) });
    let (willing, failing) = (each(0), each(3));
    let mut tx = Vec::new();
    willing.handle(&mut tx, &events).await.unwrap();
    assert_eq!(tx, [1, 2, 3, 4, 5]);
    // What was written before is the transaction's to undo; nothing behind it is tried.
    assert_eq!(failing.handle(&mut Vec::new(), &events).await, Err(Not(3)));
    assert_eq!(failing.0.handled.load(Ordering::SeqCst), 3);
    let handler: &dyn EventHandler<Vec<u64>, Error = Not> = &willing;
    assert_eq!((handler.name(), handler.aggregates(), handler.locally()), ("notes", &["counter"][..], false));
    assert_eq!((handler.tables(), handler.also_writes(), handler.revision()), (&["notes"][..], &["sums"][..], 7));
}

/// Has effects outside of any transaction, and so must wait for the bus.
#[derive(Default)]
struct Outside(AtomicU32);

#[async_trait]
impl EventHandler<()> for Outside {
    type Error = std::convert::Infallible;

    fn name(&self) -> &'static str {
        "outside"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    fn locally(&self) -> bool {
        false
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Self::Error> {
        self.0.fetch_add(u32::try_from(events.len()).unwrap(), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn in_memory_too_the_gate_refuses_the_local_way_to_who_does_not_want_it() {
    let events = committed(3).await;
    let subscription = MemorySubscription::new(Outside::default());
    let refused = subscription.deliver(&events, Way::Local).await.unwrap();
    assert_eq!(refused, Delivered { gap: 3, ..Delivered::default() }, "left to the bus");
    assert_eq!(subscription.handler().0.load(Ordering::SeqCst), 0);
    let brought = subscription.deliver(&events, Way::Bus).await.unwrap();
    assert_eq!((brought.applied, subscription.handler().0.load(Ordering::SeqCst)), (3, 3));
}

#[tokio::test]
async fn wired_to_the_local_way_by_mistake_it_still_waits_for_the_bus() {
    let local = LocalBus::new();
    let subscription = Arc::new(MemorySubscription::new(Outside::default()));
    let serving = tokio::spawn(local.serve(subscription.clone()));
    let store = MemoryStore::with_local(local.clone());
    let counters = Repository::<Counter, _>::new(store.clone());
    // The command waits until the local way has answered.
    counters.execute(Uuid::now_v7(), &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
    assert_eq!(subscription.handler().0.load(Ordering::SeqCst), 0);
    serving.abort();
}
