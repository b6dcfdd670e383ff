//! Delivery of consumed events to a subscription, with retries and schema lookups.
//!
//! Events reach the subscription in offset order, one batch after the other. A refused batch is delivered again until it is accepted.
//! An event with an unknown schema id waits for the registry, and the later events of its partition wait with it.

use std::sync::Arc;

use epoch::{
    envelope::Envelope,
    event::SchemaId,
    gate::DeliverySource,
    handler::Subscription,
    message::{Frame, ReceivedEvent},
    retry::RetryPolicy,
    trace,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::framing::Framing;

/// An event from a partition or stream.
pub struct ConsumedEvent {
    /// The offset of its record.
    pub offset: i64,
    /// The event, whose schema may have to be looked up.
    pub event: ReceivedEvent,
}

/// Observes the progress of a delivery, for health checks and offset commits.
pub trait DeliveryObserver: Sync {
    /// All events before `offset` are delivered, and the event at `offset` waits for its schema.
    fn delivered_up_to(&self, _offset: i64) {}

    /// An attempt failed and will be repeated: the task is alive.
    fn retrying(&self) {}
}

/// Ignores the progress.
impl DeliveryObserver for () {}

/// Delivers the events of one partition to a subscription.
pub struct EventDelivery {
    /// The receiver of the events.
    pub subscription: Arc<dyn Subscription>,
    /// Resolves schema ids; `None` for a bus without a registry.
    pub framing: Option<Arc<Framing>>,
    /// Ends the waits for the registry and between attempts.
    pub stop: CancellationToken,
}

impl EventDelivery {
    /// Delivers all events in order. Returns `false` if it was stopped before the last one was accepted.
    pub async fn deliver<I>(&self, events: I, observer: &impl DeliveryObserver) -> bool
    where
        I: IntoIterator<Item = ConsumedEvent>,
        I::IntoIter: Send,
    {
        let mut batch = Vec::new();
        for ConsumedEvent { offset, event } in events {
            let schema = match self.known_schema(event.frame) {
                Ok(schema) => schema,
                Err(id) => {
                    // Earlier events do not depend on the registry, so they are delivered before the wait.
                    if !self.deliver_batch(&batch, observer).await {
                        return false;
                    }
                    batch.clear();
                    observer.delivered_up_to(offset);
                    let Some(schema) = self.wait_for_schema(id, offset, observer).await else { return false };
                    schema
                }
            };
            batch.push(Arc::new(event.with_schema(schema)));
        }
        self.deliver_batch(&batch, observer).await
    }

    /// Returns the schema of a frame, or the id to look up.
    fn known_schema(&self, frame: Frame) -> Result<SchemaId, u32> {
        match (&self.framing, frame) {
            (Some(framing), frame) => framing.known(frame),
            (None, Frame::Fingerprint(schema)) => Ok(schema),
            (None, Frame::Registered(id)) => Err(id),
        }
    }

    /// Asks the registry until it returns the schema, or `None` when stopped.
    async fn wait_for_schema(&self, id: u32, offset: i64, observer: &impl DeliveryObserver) -> Option<SchemaId> {
        let failed_lookup = |error: &_, attempt| {
            tracing::error!(offset, schema_id = id, %error, attempt, "schema lookup failed; the event waits");
            observer.retrying();
        };
        self.framing.as_ref()?.wait_for(id, self.subscription.name(), &self.stop, failed_lookup).await
    }

    /// Delivers a batch until the subscription accepts it, or returns `false` when stopped.
    async fn deliver_batch(&self, batch: &[Arc<Envelope>], observer: &impl DeliveryObserver) -> bool {
        if batch.is_empty() {
            return true;
        }
        let name = self.subscription.name();
        trace::link(&Span::current(), batch);
        for attempt in 1.. {
            match self.subscription.deliver(batch, DeliverySource::Bus).await {
                Ok(delivered) => {
                    tracing::debug!(?delivered, "batch delivered");
                    metrics::counter!("epoch_bus_consumed_total", "subscription" => name.to_owned())
                        .increment(batch.len() as u64);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, "delivery failed; retrying");
                    metrics::counter!("epoch_bus_redelivered_total", "subscription" => name.to_owned()).increment(1);
                    observer.retrying();
                }
            }
            let backoff = tokio::time::sleep(RetryPolicy::HANDLER.wait(attempt));
            if self.stop.run_until_cancelled(backoff).await.is_none() {
                break;
            }
        }
        false
    }
}
