//! A handler with its delivery gate.
//!
//! A batch is delivered as a whole. If the handler fails, the batch is split by aggregate and then by event, so that
//! only the failing aggregate is parked. Transient errors park nothing; the source delivers the batch again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Batch, Envelope,
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, Subscription},
    retry::RetryPolicy,
};
use tracing::Instrument;

use crate::{
    delivery::{
        error::HandlerError, gate, generations::Generation, handler::PgHandler, parking, progress::Progress,
        runner::HandlerRunner,
    },
    store::pg_store::PgStore,
};

/// A handler with its delivery gate. Cheap to clone.
#[derive(Clone)]
pub struct PgSubscription {
    pub(crate) runner: HandlerRunner,
    retry: RetryPolicy,
}

impl PgSubscription {
    /// Creates a subscription with cursors in the schema of `store`. `progress` wakes the tasks of this process
    /// that wait for it.
    pub fn new(handler: Arc<dyn PgHandler>, store: PgStore, progress: Progress) -> Self {
        Self { runner: HandlerRunner::new(handler, store, progress), retry: RetryPolicy::HANDLER }
    }

    /// Returns the subscription for a generation that is being built; the search path of `store` starts with its
    /// schema.
    pub(crate) fn for_generation(&self, handler: Arc<dyn PgHandler>, store: PgStore, generation: Generation) -> Self {
        Self { runner: self.runner.for_generation(handler, store, generation), retry: self.retry }
    }

    /// Sets the attempts before an aggregate is parked, and the waits between them.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the deadline of the handler for one batch (default: 30 s).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.runner.deadline = deadline;
        self
    }

    /// Returns whether the fast path may deliver committed events to it.
    #[must_use]
    pub fn allows_fast_path(&self) -> bool {
        self.runner.handler.allows_fast_path()
    }

    async fn deliver_or_park(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, HandlerError> {
        let error = match gate::deliver(&self.runner, events, source).await {
            Ok(delivered) => return Ok(delivered),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        if source == DeliverySource::FastPath {
            tracing::debug!(subscription = self.name(), %error, "fast path failed; leaving the events to the bus");
            return Ok(DeliveryCounts { gap: events.len(), ..DeliveryCounts::default() });
        }
        if events.len() == 1 {
            return parking::retry_then_park(&self.runner, self.retry, events, error).await;
        }
        let mut delivered = DeliveryCounts::default();
        for events in split(events) {
            delivered = sum(delivered, Box::pin(self.deliver_or_park(&events, source)).await?);
        }
        Ok(delivered)
    }

    fn count(&self, source: DeliverySource, result: &'static str, events: usize) {
        if events > 0 {
            let name = Arc::clone(&self.runner.name);
            metrics::counter!("epoch_delivered_total", "subscription" => name, "way" => source.name(), "result" => result)
                .increment(events as u64);
        }
    }
}

/// Splits a batch by aggregate, or a batch of one aggregate by event. Keeps the order.
fn split(events: &Batch) -> Vec<Vec<Arc<Envelope>>> {
    let mut by_aggregate: Vec<Vec<Arc<Envelope>>> = Vec::new();
    for event in events {
        let same = |batch: &&mut Vec<Arc<Envelope>>| {
            batch.first().is_some_and(|first| first.aggregate_id == event.aggregate_id)
        };
        match by_aggregate.iter_mut().find(same) {
            Some(batch) => batch.push(Arc::clone(event)),
            None => by_aggregate.push(vec![Arc::clone(event)]),
        }
    }
    match by_aggregate.as_slice() {
        [_] => events.iter().map(|event| vec![Arc::clone(event)]).collect(),
        _ => by_aggregate,
    }
}

fn sum(a: DeliveryCounts, b: DeliveryCounts) -> DeliveryCounts {
    DeliveryCounts {
        applied: a.applied + b.applied,
        duplicate: a.duplicate + b.duplicate,
        gap: a.gap + b.gap,
        queued: a.queued + b.queued,
    }
}

#[async_trait]
impl Subscription for PgSubscription {
    fn name(&self) -> &str {
        &self.runner.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.runner.handler.aggregates()
    }

    async fn deliver(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        if events.is_empty() {
            return Ok(DeliveryCounts::default());
        }
        // Checked here too, and not only where routes are set up: no wiring may start external effects on the fast
        // path.
        if source == DeliverySource::FastPath && !self.allows_fast_path() {
            return Ok(DeliveryCounts { gap: events.len(), ..DeliveryCounts::default() });
        }
        let name = self.runner.handler.name();
        let span = tracing::debug_span!("apply", subscription = name, way = %source, events = events.len());
        let delivered = self
            .deliver_or_park(events, source)
            .instrument(span)
            .await
            .map_err(|error| DeliverError { subscription: self.name().to_owned(), detail: error.to_string() })?;
        self.count(source, "applied", delivered.applied);
        self.count(source, "duplicate", delivered.duplicate);
        self.count(source, "gap", delivered.gap);
        self.count(source, "queued", delivered.queued);
        Ok(delivered)
    }
}
