//! The contract of a bus.
//!
//! A bus carries events between services that do not read each other's tables. It delivers at least once, and each
//! aggregate's events in version order, to every subscription. The [gate](crate::gate) makes that exactly once.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::handler::Subscription;
use crate::event::envelope::Batch;

/// The bus did not acknowledge all events.
#[derive(Debug, Clone, thiserror::Error)]
#[error("bus acknowledged {acknowledged} of {offered} events: {detail}")]
pub struct PublishError {
    /// The number of leading events that the bus acknowledged.
    pub acknowledged: usize,
    /// The number of events to publish.
    pub offered: usize,
    /// The cause at the first unacknowledged event, with topic and partition where known.
    pub detail: String,
}

/// Consuming ended with a permanent failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("consuming for subscription {subscription} failed: {detail}")]
pub struct ConsumeError {
    /// The subscription's name.
    pub subscription: String,
    /// The cause.
    pub detail: String,
}

/// Adds acknowledged events to the counter `epoch_bus_published_total` of their aggregates.
pub fn count_published(acknowledged: &Batch) {
    for run in acknowledged.chunk_by(|event, next| event.aggregate == next.aggregate) {
        if let Some(event) = run.first() {
            metrics::counter!("epoch_bus_published_total", "aggregate" => event.aggregate.to_string())
                .increment(run.len() as u64);
        }
    }
}

/// Carries events between services.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes events in order and returns when the bus has acknowledged all of them.
    ///
    /// # Errors
    /// [`PublishError`] with the number of leading events that were acknowledged; publish the rest again.
    async fn publish(&self, events: &Batch) -> Result<(), PublishError>;

    /// Delivers events to `subscription` until `stop`: from the first event on, or from its stored position when it has
    /// one.
    ///
    /// # Errors
    /// [`ConsumeError`] when retrying is pointless; transient failures are retried internally.
    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError>;
}
