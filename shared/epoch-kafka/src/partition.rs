//! One partition's task.
//!
//! The problem: partitions must not wait for each other, a batch that can't be delivered now must not be lost or overtaken, and
//! a partition that is taken away must be let go of at a known place.
//!
//! The invariant: events go through the gate in offset order, one batch after the other; the recorded position never passes an
//! event that hasn't. Once told to stop, the task ends after the batch in hand.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, mpsc::SyncSender},
    time::{Duration, Instant},
};

use epoch::{envelope::Envelope, gate::Way, handler::Subscription, retry::RetryPolicy};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::health::lock;

/// How many events may wait for a partition's task.
pub(crate) const QUEUE: usize = 4_000;
/// How many go through the gate at once.
const BATCH: usize = 500;

/// What came from a partition.
pub(crate) struct Item {
    pub(crate) offset: i64,
    /// `None` for what isn't an event; it only moves the position.
    pub(crate) event: Option<Arc<Envelope>>,
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
            let events: Vec<_> = items.drain(..).filter_map(|item| item.event).collect();
            let span = tracing::debug_span!(
                "deliver",
                subscription = self.subscription.name(),
                topic = &*self.topic,
                partition = self.partition,
                last_offset = last,
                received,
            );
            if !events.is_empty() && !self.deliver(&events).instrument(span).await {
                return;
            }
            self.progress.begin(last + 1);
        }
    }

    /// Delivers until it succeeds; `false` when told to stop before it did.
    async fn deliver(&self, events: &[Arc<Envelope>]) -> bool {
        let name = self.subscription.name();
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
