//! Handlers: single events, and handlers that disallow the fast path.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Envelope, FastPath, Position, Repository,
    gate::DeliverySource,
    handler::{DeliveryCounts, EventHandler, PerEvent, PerEventHandler, Subscription},
    memory::{MemoryStore, MemorySubscription},
    store::Streamer,
};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

/// Records versions in its "transaction", and fails at one of them.
struct VersionRecorder {
    fails_at: u64,
    handled: AtomicU32,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("not {0}")]
struct Not(u64);

#[async_trait]
impl PerEventHandler<Vec<u64>> for VersionRecorder {
    type Error = Not;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    fn allows_fast_path(&self) -> bool {
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
async fn per_event_handler_stops_at_the_first_failure() {
    let events = committed(5).await;
    let handler = |fails_at| PerEvent(VersionRecorder { fails_at, handled: AtomicU32::new(0) });
    let (succeeding, failing) = (handler(0), handler(3));
    let mut tx = Vec::new();
    succeeding.handle(&mut tx, &events).await.unwrap();
    assert_eq!(tx, [1, 2, 3, 4, 5]);
    // Events after the failure are not handled. The transaction rolls the earlier ones back.
    assert_eq!(failing.handle(&mut Vec::new(), &events).await, Err(Not(3)));
    assert_eq!(failing.0.handled.load(Ordering::SeqCst), 3);
    let handler: &dyn EventHandler<Vec<u64>, Error = Not> = &succeeding;
    assert_eq!((handler.name(), handler.aggregates(), handler.allows_fast_path()), ("notes", &["counter"][..], false));
    assert_eq!((handler.tables(), handler.also_writes(), handler.revision()), (&["notes"][..], &["sums"][..], 7));
}

/// A handler with effects outside the transaction, which disallows the fast path.
#[derive(Default)]
struct ExternalEffects(AtomicU32);

#[async_trait]
impl EventHandler<()> for ExternalEffects {
    type Error = std::convert::Infallible;

    fn name(&self) -> &'static str {
        "outside"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["counter"]
    }

    fn allows_fast_path(&self) -> bool {
        false
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Self::Error> {
        self.0.fetch_add(u32::try_from(events.len()).unwrap(), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn gate_rejects_fast_path_for_a_handler_that_disallows_it() {
    let events = committed(3).await;
    let subscription = MemorySubscription::new(ExternalEffects::default());
    let rejected = subscription.deliver(&events, DeliverySource::FastPath).await.unwrap();
    assert_eq!(rejected, DeliveryCounts { gap: 3, ..DeliveryCounts::default() }, "left to the bus");
    assert_eq!(subscription.handler().0.load(Ordering::SeqCst), 0);
    let delivered = subscription.deliver(&events, DeliverySource::Bus).await.unwrap();
    assert_eq!((delivered.applied, subscription.handler().0.load(Ordering::SeqCst)), (3, 3));
}

#[tokio::test]
async fn handler_on_a_disallowed_fast_path_waits_for_the_bus() {
    let fast_path = FastPath::new();
    let subscription = Arc::new(MemorySubscription::new(ExternalEffects::default()));
    let serving = tokio::spawn(fast_path.serve(subscription.clone()));
    let store = MemoryStore::with_fast_path(fast_path.clone());
    let counters = Repository::<Counter, _>::new(store.clone());
    // The command returns after the fast path has delivered.
    counters.execute(Uuid::now_v7(), &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
    assert_eq!(subscription.handler().0.load(Ordering::SeqCst), 0);
    serving.abort();
}
