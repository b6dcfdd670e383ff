//! An in-memory bus for services in one process.
//!
//! The log only grows. A consumer group's position advances only after its subscription accepted the events, by one
//! consumer at a time, and outlives the consumers, as with a broker.

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

use super::lock::lock;
use crate::{
    delivery::{
        bus::{Bus, ConsumeError, PublishError},
        gate::DeliverySource,
        handler::Subscription,
        trace,
    },
    event::envelope::{Batch, Envelope},
    time::retry::RetryPolicy,
};

/// How many events are delivered together.
const BATCH: usize = 256;

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<Arc<Envelope>>>,
    grown: watch::Sender<usize>,
    groups: Mutex<HashMap<String, Arc<Group>>>,
}

/// The consumers of one subscription.
struct Group {
    /// One permit: one consumer is active, the others stand by.
    active: Semaphore,
    /// The number of delivered events of the log.
    position: AtomicUsize,
}

impl Default for Group {
    fn default() -> Self {
        Self { active: Semaphore::new(1), position: AtomicUsize::new(0) }
    }
}

/// A bus in memory. It keeps all events, so a new subscription receives them from the first one on.
#[derive(Clone, Default)]
pub struct MemoryBus {
    shared: Arc<Shared>,
    group_prefix: String,
}

impl MemoryBus {
    /// Creates an empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a handle for another service; `prefix` separates its groups from other groups of equal name.
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

    /// Delivers to the group until `stop`, which takes effect between batches.
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
            let subscribed = |event: &&Arc<Envelope>| subscription.aggregates().contains(&&*event.aggregate);
            let events: Vec<_> = batch.iter().filter(subscribed).cloned().collect();
            let span = tracing::debug_span!("deliver", subscription = subscription.name(), events = events.len());
            trace::link(&span, &events);
            if !events.is_empty()
                && let Err(error) = subscription.deliver(&events, DeliverySource::Bus).instrument(span).await
            {
                failed += 1;
                tracing::warn!(%error, failed, "delivery failed; retrying the batch");
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
        if let Some(_permit) = stop.run_until_cancelled(group.active.acquire()).await {
            self.serve(&*subscription, &group, &stop).await;
        }
        Ok(())
    }
}
