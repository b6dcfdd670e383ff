//! An in-memory subscription.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;

use crate::{
    delivery::{
        gate::{Cursor, DeliverySource, ParkReason, Verdict},
        handler::{DeliverError, DeliveryCounts, EventHandler, Subscription},
    },
    event::{
        envelope::{Batch, Envelope, StreamKey},
        version::Version,
    },
};

#[derive(Default)]
struct Progress {
    cursors: HashMap<StreamKey, Cursor>,
    /// The queued events of parked aggregates.
    queues: HashMap<StreamKey, BTreeMap<Version, Arc<Envelope>>>,
}

/// A subscription with in-memory cursors.
pub struct MemorySubscription<H> {
    handler: H,
    progress: tokio::sync::Mutex<Progress>,
}

impl<H: EventHandler<()>> MemorySubscription<H> {
    /// Creates a subscription without progress.
    pub fn new(handler: H) -> Self {
        Self { handler, progress: tokio::sync::Mutex::default() }
    }

    /// Returns the handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Applies queued events that follow the cursor without a gap. Returns their number.
    async fn release(&self, progress: &mut Progress, stream: &StreamKey, cursor: &mut Cursor) -> usize {
        let mut applied = 0;
        let Some(queue) = progress.queues.get_mut(stream) else { return applied };
        while let Some(first) = queue.first_entry() {
            let event = Arc::clone(first.get());
            match event.version.cmp(&cursor.version.next()) {
                Ordering::Greater => return applied,
                Ordering::Less => drop(first.remove()),
                Ordering::Equal => {
                    if let Err(error) = self.handler.handle(&mut (), std::slice::from_ref(&event)).await {
                        tracing::warn!(subscription = self.handler.name(), %error, "handler failed; aggregate parked");
                        cursor.parked = Some(ParkReason::Failed);
                        return applied;
                    }
                    first.remove();
                    cursor.version = event.version;
                    applied += 1;
                }
            }
        }
        cursor.parked = None;
        applied
    }

    /// Returns the cursor of an aggregate.
    pub async fn cursor(&self, stream: &StreamKey) -> Cursor {
        self.progress.lock().await.cursors.get(stream).copied().unwrap_or_default()
    }
}

#[async_trait]
impl<H: EventHandler<()>> Subscription for MemorySubscription<H> {
    fn name(&self) -> &str {
        self.handler.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.handler.aggregates()
    }

    async fn deliver(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        if source == DeliverySource::FastPath && !self.handler.allows_fast_path() {
            return Ok(DeliveryCounts { gap: events.len(), ..DeliveryCounts::default() });
        }
        // The lock replaces the transaction that covers cursors and effects.
        let mut progress = self.progress.lock().await;
        let mut counts = DeliveryCounts::default();
        for event in events {
            let stream = event.stream();
            let mut cursor = progress.cursors.get(&stream).copied().unwrap_or_default();
            let before = cursor;
            match cursor.judge(event.version, source) {
                Verdict::Duplicate => counts.duplicate += 1,
                Verdict::Gap => counts.gap += 1,
                Verdict::Queue => {
                    counts.queued += 1;
                    progress.queues.entry(stream.clone()).or_default().insert(event.version, Arc::clone(event));
                }
                Verdict::Apply => match self.handler.handle(&mut (), std::slice::from_ref(event)).await {
                    Ok(()) => counts.applied += 1,
                    Err(error) => {
                        tracing::warn!(subscription = self.name(), %error, "handler failed; aggregate parked");
                        counts.queued += 1;
                        cursor = Cursor { version: before.version, parked: Some(ParkReason::Failed) };
                        progress.queues.entry(stream.clone()).or_default().insert(event.version, Arc::clone(event));
                    }
                },
            }
            if cursor.parked == Some(ParkReason::Gap) {
                counts.applied += self.release(&mut progress, &stream, &mut cursor).await;
            }
            progress.cursors.insert(stream, cursor);
        }
        Ok(counts)
    }
}
