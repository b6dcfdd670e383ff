//! Buses under test.

use std::sync::Arc;

use async_trait::async_trait;

use crate::delivery::bus::Bus;

/// Creates buses of one kind. Each factory acts as an isolated broker, without events or groups of other factories.
#[async_trait]
pub trait BusFactory: Send + Sync + 'static {
    /// Returns a bus as another process would open it.
    async fn bus(&self) -> Arc<dyn Bus>;

    /// Publishes a message that is not an event to the topic of [`AGGREGATE`](super::AGGREGATE). Returns false when the
    /// bus cannot carry one.
    async fn publish_malformed(&self) -> bool;

    /// Returns the maximum number of events that a group may have in flight.
    fn max_in_flight(&self) -> usize;

    /// Returns whether the members of a group work concurrently; otherwise one works and the others stand by.
    fn shares_work(&self) -> bool;

    /// Deletes the broker's data after a passed test.
    async fn close(&self) {}
}

/// The factory of one test.
pub type Factory = Arc<dyn BusFactory>;
