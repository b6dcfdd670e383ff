//! Subscriptions that record deliveries before their gate.
//!
//! A gate hides repeated, reordered and excessive deliveries, so the suite records each delivery before the gate, in
//! the order of the bus. Events count as in flight until the bus has its answer, or has stopped waiting for it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{
    kit::{self, ConsumerTask},
    recorder::EventRecorder,
};
use crate::{
    delivery::{
        bus::Bus,
        gate::DeliverySource,
        handler::{DeliverError, DeliveryCounts, Subscription},
    },
    event::envelope::{Batch, Envelope, StreamKey},
    memory::{MemorySubscription, lock::lock},
};

/// The aggregate of the suite's events.
pub const AGGREGATE: &str = "conformance";
/// An event's aggregate id and version.
pub(super) type EventKey = (Uuid, u64);
/// Code that runs before or after the gate.
pub(super) type Hook = Arc<dyn Fn(&Batch) -> BoxFuture<'static, Result<(), DeliverError>> + Send + Sync>;

pub(super) fn key_of(event: &Envelope) -> EventKey {
    (event.aggregate_id, event.version.get())
}

/// An event of the suite's aggregate.
pub(super) fn event(id: Uuid, version: u64) -> Arc<Envelope> {
    kit::event(AGGREGATE, id, version)
}

pub(super) fn events(ids: &[Uuid], versions: std::ops::RangeInclusive<u64>) -> Vec<Arc<Envelope>> {
    kit::events(AGGREGATE, ids, versions)
}

/// The deliveries to the members of a group.
#[derive(Default)]
pub(super) struct DeliveryLog {
    delivered: Mutex<Vec<EventKey>>,
    /// The member that each aggregate in flight was delivered to.
    members: Mutex<HashMap<Uuid, usize>>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    overlaps: AtomicUsize,
}

impl DeliveryLog {
    /// Returns all deliveries in order, including repeated ones.
    pub(super) fn delivered(&self) -> Vec<EventKey> {
        lock(&self.delivered).clone()
    }

    /// Returns the highest number of events that were in flight at once.
    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight.load(Ordering::SeqCst)
    }

    /// Returns how often an aggregate was delivered to one member while in flight at another.
    pub(super) fn overlaps(&self) -> usize {
        self.overlaps.load(Ordering::SeqCst)
    }
}

/// A delivery in flight; ends when dropped.
struct InFlight {
    log: Arc<DeliveryLog>,
    ids: HashSet<Uuid>,
    count: usize,
}

impl InFlight {
    fn start(log: &Arc<DeliveryLog>, member: usize, events: &Batch) -> Self {
        let ids: HashSet<_> = events.iter().map(|event| event.aggregate_id).collect();
        lock(&log.delivered).extend(events.iter().map(|event| key_of(event)));
        let mut members = lock(&log.members);
        for id in &ids {
            if members.insert(*id, member).is_some_and(|other| other != member) {
                log.overlaps.fetch_add(1, Ordering::SeqCst);
            }
        }
        drop(members);
        let now = log.in_flight.fetch_add(events.len(), Ordering::SeqCst) + events.len();
        log.max_in_flight.fetch_max(now, Ordering::SeqCst);
        Self { log: Arc::clone(log), ids, count: events.len() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.log.members).retain(|id, _| !self.ids.contains(id));
        self.log.in_flight.fetch_sub(self.count, Ordering::SeqCst);
    }
}

/// A subscription with its delivery log, hooks and gate. Members of one group share log and gate.
#[derive(Clone)]
pub(super) struct Probe {
    gate: Arc<MemorySubscription<EventRecorder>>,
    pub(super) log: Arc<DeliveryLog>,
    member: usize,
    before: Option<Hook>,
    after: Option<Hook>,
}

impl Probe {
    pub(super) fn new(name: &'static str) -> Self {
        Self::with_handler(EventRecorder::new(name, &[AGGREGATE]))
    }

    /// Creates a subscription with a handler that fails for one aggregate.
    pub(super) fn rejecting(name: &'static str, rejected: Uuid) -> Self {
        Self::with_handler(EventRecorder::new(name, &[AGGREGATE]).rejecting(rejected))
    }

    fn with_handler(handler: EventRecorder) -> Self {
        let (gate, log) = (Arc::new(MemorySubscription::new(handler)), Arc::default());
        Self { gate, log, member: 0, before: None, after: None }
    }

    /// Returns the same subscription in another process.
    pub(super) fn member(&self, member: usize) -> Self {
        Self { member, ..self.clone() }
    }

    pub(super) fn before(self, hook: Hook) -> Self {
        Self { before: Some(hook), ..self }
    }

    pub(super) fn after(self, hook: Hook) -> Self {
        Self { after: Some(hook), ..self }
    }

    pub(super) fn applied(&self) -> Vec<Arc<Envelope>> {
        self.gate.handler().events()
    }

    pub(super) fn applied_count(&self) -> usize {
        self.gate.handler().count()
    }

    pub(super) fn keys(&self) -> Vec<EventKey> {
        self.applied().iter().map(|event| key_of(event)).collect()
    }

    pub(super) async fn is_parked(&self, id: Uuid) -> bool {
        let stream = StreamKey { aggregate: Cow::Borrowed(AGGREGATE), id };
        self.gate.cursor(&stream).await.parked.is_some()
    }

    /// Waits until the handler has applied `count` events.
    #[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
    pub(super) async fn wait_for(&self, count: usize) {
        if !self.gate.handler().wait_for(count).await {
            // Delivered but unapplied events wait for an earlier version; undelivered events are still on the bus.
            let (delivered, applied) = (self.log.delivered(), self.keys());
            let waiting: HashSet<_> = delivered.iter().filter(|key| !applied.contains(key)).collect();
            panic!(
                "{} of {count} events were applied, {} delivered; waiting at the gate: {waiting:?}",
                applied.len(),
                delivered.len()
            );
        }
    }

    /// Starts consuming in a task of its own.
    pub(super) fn consume(&self, bus: &Arc<dyn Bus>) -> ConsumerTask {
        ConsumerTask::start(bus, Arc::new(self.clone()))
    }
}

#[async_trait]
impl Subscription for Probe {
    fn name(&self) -> &str {
        self.gate.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.gate.aggregates()
    }

    async fn deliver(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        assert_eq!(source, DeliverySource::Bus);
        let _in_flight = InFlight::start(&self.log, self.member, events);
        if let Some(before) = &self.before {
            before(events).await?;
        }
        let counts = self.gate.deliver(events, source).await?;
        if let Some(after) = &self.after {
            after(events).await?;
        }
        Ok(counts)
    }
}
