//! What a bus promises.
//!
//! The problem: services that must not know each other's tables still need each other's events.
//!
//! The invariant: at least once, and per aggregate in version order, to every subscription. Exactly once is the
//! [gate](crate::gate)'s work, not the bus's.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{envelope::Batch, handler::Subscription};

/// Not all events were acknowledged by the bus.
#[derive(Debug, Clone, thiserror::Error)]
#[error("bus took {acknowledged} of {offered} events: {detail}")]
pub struct PublishError {
    /// How many of the first events are safely on the bus.
    pub acknowledged: usize,
    /// How many were to be published.
    pub offered: usize,
    /// What was seen at the first that isn't, with its topic and partition where known.
    pub detail: String,
}

/// A bus can't be consumed from any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("subscription {subscription} can't be consumed: {detail}")]
pub struct ConsumeError {
    /// Whose.
    pub subscription: String,
    /// What was seen.
    pub detail: String,
}

/// Carries events between services.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes events in the order given, and returns when the bus has them all.
    ///
    /// # Errors
    /// [`PublishError`] says how many of the first ones it has; the rest must be published again.
    async fn publish(&self, events: &Batch) -> Result<(), PublishError>;

    /// Delivers events to `subscription`, from the beginning the first time and then from where it was, until `stop`.
    ///
    /// # Errors
    /// [`ConsumeError`] when going on makes no sense; faults that pass are waited out.
    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError>;
}
