//! A bus in memory.
//!
//! The problem: all services in one process need no broker, and yet the same promises.
//!
//! The invariant: the log only grows, and a group's position in it moves only past what went through the gate, by the one
//! member whose turn it is. The position outlives its consumers, as it does with a broker.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::lock;
use crate::{
    bus::{Bus, ConsumeError, PublishError},
    envelope::{Batch, Envelope},
    gate::Way,
    handler::Subscription,
    retry::RetryPolicy,
    trace,
};

/// Events delivered at once.
const BATCH: usize = 256;

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<Arc<Envelope>>>,
    grown: watch::Sender<usize>,
    groups: Mutex<HashMap<String, Arc<Group>>>,
}

/// The consumers of one subscription.
struct Group {
    /// One permit: one consumer works, the others stand by.
    turn: Semaphore,
    /// How many events of the log it has had.
    position: AtomicUsize,
}

impl Default for Group {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), position: AtomicUsize::new(0) }
    }
}

/// A bus in memory: keeps everything, so that late subscribers get it from the beginning.
#[derive(Clone, Default)]
pub struct MemoryBus {
    shared: Arc<Shared>,
    group_prefix: String,
}

impl MemoryBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same bus for another service; `prefix` tells subscriptions of one name apart.
    #[must_use]
    pub fn with_group_prefix(&self, prefix: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), group_prefix: prefix.to_owned() }
    }

    fn group(&self, subscription: &str) -> Arc<Group> {
        let name = format!("{}.{subscription}", self.group_prefix);
        Arc::clone(lock(&self.shared.groups).entry(name).or_default())
    }

    fn read(&self, position: usize) -> Vec<Arc<Envelope>> {
        lock(&self.shared.log).iter().skip(position).take(BATCH).cloned().collect()
    }

    /// Serves the group until `stop`; the batch in hand is finished first.
    async fn serve(&self, subscription: &dyn Subscription, group: &Group, stop: &CancellationToken) {
        let mut grown = self.shared.grown.subscribe();
        let mut failed = 0;
        while !stop.is_cancelled() {
            let position = group.position.load(Ordering::SeqCst);
            let batch = self.read(position);
            if batch.is_empty() {
                stop.run_until_cancelled(grown.changed()).await;
                continue;
            }
            let wanted = |event: &&Arc<Envelope>| subscription.aggregates().contains(&&*event.aggregate);
            let wanted: Vec<_> = batch.iter().filter(wanted).cloned().collect();
            let span = tracing::debug_span!("deliver", subscription = subscription.name(), events = wanted.len());
            trace::link(&span, &wanted);
            if !wanted.is_empty()
                && let Err(error) = subscription.deliver(&wanted, Way::Bus).instrument(span).await
            {
                failed += 1;
                tracing::warn!(%error, failed, "the batch will be delivered again");
                stop.run_until_cancelled(tokio::time::sleep(RetryPolicy::HANDLER.wait(failed))).await;
                continue;
            }
            failed = 0;
            group.position.store(position + batch.len(), Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let mut log = lock(&self.shared.log);
        log.extend(events.iter().cloned());
        self.shared.grown.send_replace(log.len());
        Ok(())
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        let group = self.group(subscription.name());
        if let Some(_turn) = stop.run_until_cancelled(group.turn.acquire()).await {
            self.serve(&*subscription, &group, &stop).await;
        }
        Ok(())
    }
}
