//! The delivery interface of a handler.

use async_trait::async_trait;

use crate::{delivery::gate::DeliverySource, event::envelope::Batch};

/// The number of events per gate verdict in one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounts {
    /// Events that were applied.
    pub applied: usize,
    /// Events that were dropped because they had been applied before.
    pub duplicate: usize,
    /// Events that were left to another source because an earlier event is missing.
    pub gap: usize,
    /// Events that were queued because their aggregate is parked.
    pub queued: usize,
}

/// A batch could not be delivered and must be delivered again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("delivery to subscription {subscription} failed: {detail}")]
pub struct DeliverError {
    /// The subscription's name.
    pub subscription: String,
    /// The cause.
    pub detail: String,
}

/// A handler with its gate, to which buses, the fast path and replays deliver.
#[async_trait]
pub trait Subscription: Send + Sync + 'static {
    /// Returns the subscription's name.
    fn name(&self) -> &str;

    /// Returns the names of the aggregates that are delivered.
    fn aggregates(&self) -> &'static [&'static str];

    /// Passes a batch through the gate to the handler.
    ///
    /// # Errors
    /// [`DeliverError`] when nothing was applied and the batch must be delivered again. A permanent failure of the
    /// handler is not an error here: the gate parks the aggregate.
    async fn deliver(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, DeliverError>;
}
