//! One partition's task.
//!
//! The problem: partitions must not wait for each other, a batch that can't be delivered now must not be lost or overtaken, and
//! a partition that is taken away must be let go of at a known place.
//!
//! The invariant: events go through the gate in offset order, one batch after the other; the recorded position never passes an
//! event that hasn't. Once told to stop, the task ends after the batch in hand. An event whose schema only the registry can tell
//! waits for the registry, and with it what comes behind it in the partition.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, mpsc::SyncSender},
    time::{Duration, Instant},
};

use epoch::{
    envelope::Envelope,
    event::SchemaId,
    gate::Way,
    handler::Subscription,
    message::{Frame, Received},
    retry::RetryPolicy,
    trace,
};
use epoch_registry::{Framing, RegistryError};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::health::lock;

/// How many events may wait for a partition's task.
pub(crate) const QUEUE: usize = 4_000;
/// How many go through the gate at once.
const BATCH: usize = 500;

/// What came from a partition.
pub(crate) struct Item {
    pub(crate) offset: i64,
    /// `None` for what isn't an event; it only moves the position.
    pub(crate) event: Option<Received>,
}

/// How far a partition's task is.
pub(crate) struct Progress {
    state: Mutex<(i64, Instant)>,
}

/// No offset is known yet.
pub(crate) const UNKNOWN: i64 = -1;

impl Progress {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new((UNKNOWN, Instant::now())) }
    }

    /// The offset of the first event that hasn't been through the gate.
    pub(crate) fn position(&self) -> i64 {
        lock(&self.state).0
    }

    /// How long ago the last sign of life was.
    pub(crate) fn silent(&self) -> Duration {
        lock(&self.state).1.elapsed()
    }

    /// A sign of life.
    fn touch(&self) {
        lock(&self.state).1 = Instant::now();
    }

    /// The event at this offset is the next to go through the gate.
    pub(crate) fn begin(&self, position: i64) {
        *lock(&self.state) = (position, Instant::now());
    }
}

pub(crate) struct PartitionTask {
    pub(crate) subscription: Arc<dyn Subscription>,
    pub(crate) framing: Option<Arc<Framing>>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) items: Receiver<Item>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stop: CancellationToken,
    /// Dropped when the task ends, however it ends: the polling thread waits for that.
    pub(crate) _ended: SyncSender<Infallible>,
}

impl PartitionTask {
    pub(crate) async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                received = self.items.recv_many(&mut items, BATCH) => received,
            };
            let Some(last) = items.last().map(|item| item.offset) else { return };
            self.progress.touch();
            let span = tracing::debug_span!(
                "deliver",
                subscription = self.subscription.name(),
                topic = &*self.topic,
                partition = self.partition,
                last_offset = last,
                received,
            );
            if !self.take(&mut items).instrument(span).await {
                return;
            }
            self.progress.begin(last + 1);
        }
    }

    /// Brings what was received through the gate; `false` when told to stop before all of it was.
    async fn take(&self, items: &mut Vec<Item>) -> bool {
        let mut events = Vec::with_capacity(items.len());
        for Item { offset, event } in items.drain(..) {
            let Some(received) = event else { continue };
            let schema = match self.known_schema(received.frame) {
                Ok(schema) => schema,
                Err(id) => {
                    // What came before it needn't wait for the registry.
                    if !self.deliver(&events).await {
                        return false;
                    }
                    events.clear();
                    self.progress.begin(offset);
                    let Some(schema) = self.look_up(id, offset).await else { return false };
                    schema
                }
            };
            events.push(Arc::new(received.with_schema(schema)));
        }
        self.deliver(&events).await
    }

    /// The schema that a frame names, or the number that has to be looked up.
    fn known_schema(&self, frame: Frame) -> Result<SchemaId, u32> {
        match (&self.framing, frame) {
            (Some(framing), frame) => framing.known(frame),
            (None, Frame::Fingerprint(schema)) => Ok(schema),
            (None, Frame::Registered(id)) => Err(id),
        }
    }

    /// Asks the registry until it answers; `None` when told to stop before it did.
    async fn look_up(&self, id: u32, offset: i64) -> Option<SchemaId> {
        let waits = |error: &RegistryError, failed| {
            tracing::error!(offset, id, %error, failed, "an event waits for its schema");
            self.progress.touch();
        };
        self.framing.as_ref()?.wait_for(id, self.subscription.name(), &self.stop, waits).await
    }

    /// Delivers until it succeeds; `false` when told to stop before it did.
    async fn deliver(&self, events: &[Arc<Envelope>]) -> bool {
        if events.is_empty() {
            return true;
        }
        let name = self.subscription.name();
        trace::link(&Span::current(), events);
        for failed in 1.. {
            match self.subscription.deliver(events, Way::Bus).await {
                Ok(delivered) => {
                    tracing::debug!(?delivered, "delivered");
                    metrics::counter!("epoch_bus_consumed_total", "subscription" => name.to_owned())
                        .increment(events.len() as u64);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, failed, "the batch will be delivered again");
                    metrics::counter!("epoch_bus_redelivered_total", "subscription" => name.to_owned()).increment(1);
                    self.progress.touch();
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(RetryPolicy::HANDLER.wait(failed)) => {}
            }
        }
        false
    }
}
