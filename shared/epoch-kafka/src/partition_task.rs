//! The task that delivers one partition's events.
//!
//! Each partition has its own task, so a slow partition does not delay the others. The task delivers one batch after the other, in
//! offset order. Its position never passes an event that the subscription has not accepted. When stopped, it finishes the batch in
//! progress and ends.

use std::{
    convert::Infallible,
    sync::{Arc, mpsc::SyncSender},
};

use epoch::message::ReceivedEvent;
use epoch_registry::{ConsumedEvent, EventDelivery};
use tokio::sync::mpsc::Receiver;
use tracing::Instrument;

use crate::progress::Progress;

/// The capacity of a partition's queue, in records.
pub(crate) const QUEUE: usize = 4_000;
/// The maximum number of events in a batch.
const BATCH: usize = 500;

/// A record that was polled from a partition.
pub(crate) struct PolledRecord {
    pub(crate) offset: i64,
    /// `None` for a record that is not an event; it only advances the position.
    pub(crate) event: Option<ReceivedEvent>,
}

pub(crate) struct PartitionTask {
    pub(crate) delivery: EventDelivery,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) queue: Receiver<PolledRecord>,
    pub(crate) progress: Arc<Progress>,
    /// Dropped when the task ends for any reason, including a panic: the polling thread waits for that.
    pub(crate) _ended: SyncSender<Infallible>,
}

impl PartitionTask {
    pub(crate) async fn run(mut self) {
        let mut records = Vec::with_capacity(BATCH);
        loop {
            let received = tokio::select! {
                biased;
                () = self.delivery.stop.cancelled() => return,
                received = self.queue.recv_many(&mut records, BATCH) => received,
            };
            let Some(last_offset) = records.last().map(|record| record.offset) else { return };
            self.progress.touch();
            let span = tracing::debug_span!(
                "deliver",
                subscription = self.delivery.subscription.name(),
                topic = &*self.topic,
                partition = self.partition,
                last_offset,
                received,
            );
            let events = records
                .drain(..)
                .filter_map(|PolledRecord { offset, event }| Some(ConsumedEvent { offset, event: event? }));
            if !self.delivery.deliver(events, &*self.progress).instrument(span).await {
                return;
            }
            self.progress.set_position(last_offset + 1);
        }
    }
}
