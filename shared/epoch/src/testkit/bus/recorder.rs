//! A handler that records the events it receives.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::kit::LIMIT;
use crate::{
    delivery::handler::EventHandler,
    event::envelope::{Batch, Envelope},
};

/// Records the events it receives, and can reject those of one aggregate.
pub struct EventRecorder {
    name: &'static str,
    aggregates: &'static [&'static str],
    rejected: Option<Uuid>,
    events: watch::Sender<Vec<Arc<Envelope>>>,
}

/// The recorder rejects the events of this aggregate.
#[derive(Debug, thiserror::Error)]
#[error("rejected by the test")]
pub struct Rejected;

impl EventRecorder {
    /// Creates a handler of the subscription `name`.
    #[must_use]
    pub fn new(name: &'static str, aggregates: &'static [&'static str]) -> Self {
        Self { name, aggregates, rejected: None, events: watch::Sender::default() }
    }

    /// Rejects every batch with an event of the aggregate `id`.
    #[must_use]
    pub fn rejecting(self, id: Uuid) -> Self {
        Self { rejected: Some(id), ..self }
    }

    /// Returns the recorded events, in order of arrival.
    #[must_use]
    pub fn events(&self) -> Vec<Arc<Envelope>> {
        self.events.borrow().clone()
    }

    /// Returns the number of recorded events.
    #[must_use]
    pub fn count(&self) -> usize {
        self.events.borrow().len()
    }

    /// Waits until `count` events are recorded. Returns `false` when they are not within [`LIMIT`].
    pub async fn wait_for(&self, count: usize) -> bool {
        let mut events = self.events.subscribe();
        tokio::time::timeout(LIMIT, events.wait_for(|events| events.len() >= count)).await.is_ok()
    }
}

#[async_trait]
impl EventHandler<()> for EventRecorder {
    type Error = Rejected;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.aggregates
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Rejected> {
        if events.iter().any(|event| Some(event.aggregate_id) == self.rejected) {
            return Err(Rejected);
        }
        self.events.send_modify(|recorded| recorded.extend_from_slice(events));
        Ok(())
    }
}
