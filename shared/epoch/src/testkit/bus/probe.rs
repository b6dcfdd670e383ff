//! Subscriptions that write down what a bus hands them.
//!
//! The problem: behind its gate a subscription looks right even when its bus repeats, reorders or floods; a suite for buses
//! must see what came before the gate.
//!
//! The invariant: every hand-over is in the book before the gate sees it, in the order in which the bus made it, and events are
//! in hand until the bus has its answer, also when the bus gives up waiting for it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use super::kit::{self, Consuming, LIMIT};
use crate::{
    bus::Bus,
    envelope::{Batch, Envelope, StreamKey},
    gate::Way,
    handler::{DeliverError, Delivered, EventHandler, Subscription},
    memory::MemorySubscription,
};

/// The aggregate whose events the suite publishes.
pub const AGGREGATE: &str = "conformance";
/// An event's aggregate and version.
pub(super) type Mark = (Uuid, u64);
/// Something that happens before or after the gate.
pub(super) type Hook = Arc<dyn Fn(&Batch) -> BoxFuture<'static, Result<(), DeliverError>> + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn mark(event: &Envelope) -> Mark {
    (event.aggregate_id, event.version.get())
}

/// An event of the suite's aggregate.
pub(super) fn event(id: Uuid, version: u64) -> Arc<Envelope> {
    kit::event(AGGREGATE, id, version)
}

pub(super) fn events(ids: &[Uuid], versions: std::ops::RangeInclusive<u64>) -> Vec<Arc<Envelope>> {
    kit::events(AGGREGATE, ids, versions)
}

/// What was handed to the members of a group.
#[derive(Default)]
pub(super) struct Book {
    handed: Mutex<Vec<Mark>>,
    in_hand: Mutex<HashMap<Uuid, usize>>,
    count: AtomicUsize,
    most: AtomicUsize,
    overlaps: AtomicUsize,
}

impl Book {
    /// All hand-overs in order, repetitions as well.
    pub(super) fn handed(&self) -> Vec<Mark> {
        lock(&self.handed).clone()
    }

    /// The most events that were in hand at once.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// How often an aggregate was handed to a member while another had it in hand.
    pub(super) fn overlaps(&self) -> usize {
        self.overlaps.load(Ordering::SeqCst)
    }
}

/// Events in hand; given back when dropped.
struct InHand {
    book: Arc<Book>,
    ids: HashSet<Uuid>,
    count: usize,
}

impl InHand {
    fn take(book: &Arc<Book>, member: usize, events: &Batch) -> Self {
        let ids: HashSet<_> = events.iter().map(|event| event.aggregate_id).collect();
        lock(&book.handed).extend(events.iter().map(|event| mark(event)));
        let mut in_hand = lock(&book.in_hand);
        for id in &ids {
            if in_hand.insert(*id, member).is_some_and(|other| other != member) {
                book.overlaps.fetch_add(1, Ordering::SeqCst);
            }
        }
        drop(in_hand);
        let now = book.count.fetch_add(events.len(), Ordering::SeqCst) + events.len();
        book.most.fetch_max(now, Ordering::SeqCst);
        Self { book: Arc::clone(book), ids, count: events.len() }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.book.in_hand).retain(|id, _| !self.ids.contains(id));
        self.book.count.fetch_sub(self.count, Ordering::SeqCst);
    }
}

/// A handler that writes down what it applies, and refuses one aggregate.
struct Notes {
    name: &'static str,
    refused: Option<Uuid>,
    applied: watch::Sender<Vec<Arc<Envelope>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("as the test wants it")]
struct Refused;

#[async_trait]
impl EventHandler<()> for Notes {
    type Error = Refused;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Refused> {
        if events.iter().any(|event| Some(event.aggregate_id) == self.refused) {
            return Err(Refused);
        }
        self.applied.send_modify(|applied| applied.extend_from_slice(events));
        Ok(())
    }
}

/// A subscription: its book, its hooks and its gate. Members of one group share book and gate.
#[derive(Clone)]
pub(super) struct Probe {
    gate: Arc<MemorySubscription<Notes>>,
    pub(super) book: Arc<Book>,
    member: usize,
    before: Option<Hook>,
    after: Option<Hook>,
}

impl Probe {
    pub(super) fn new(name: &'static str) -> Self {
        Self::refusing(name, None)
    }

    /// One whose handler fails for an aggregate.
    pub(super) fn refusing(name: &'static str, refused: Option<Uuid>) -> Self {
        let notes = Notes { name, refused, applied: watch::Sender::default() };
        let (gate, book) = (Arc::new(MemorySubscription::new(notes)), Arc::default());
        Self { gate, book, member: 0, before: None, after: None }
    }

    /// The same subscription in another process.
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
        self.gate.handler().applied.borrow().clone()
    }

    pub(super) fn applied_count(&self) -> usize {
        self.gate.handler().applied.borrow().len()
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.applied().iter().map(|event| mark(event)).collect()
    }

    pub(super) async fn is_parked(&self, id: Uuid) -> bool {
        let stream = StreamKey { aggregate: Cow::Borrowed(AGGREGATE), id };
        self.gate.cursor(&stream).await.parked.is_some()
    }

    /// Waits until the handler has applied so many events.
    #[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
    pub(super) async fn wait_for(&self, count: usize) {
        let mut applied = self.gate.handler().applied.subscribe();
        let waited = tokio::time::timeout(LIMIT, applied.wait_for(|applied| applied.len() >= count)).await;
        if waited.is_err() {
            // What was handed over and not applied waits behind a gap; what was not handed over is still at the bus.
            let (handed, applied) = (self.book.handed(), self.marks());
            let waiting: HashSet<_> = handed.iter().filter(|mark| !applied.contains(mark)).collect();
            panic!(
                "{} of {count} events came, {} were handed over, at the gate wait {waiting:?}",
                applied.len(),
                handed.len()
            );
        }
    }

    /// Consumes in a task of its own until stopped or dropped.
    pub(super) fn consume(&self, bus: &Arc<dyn Bus>) -> Consuming {
        Consuming::start(bus, Arc::new(self.clone()))
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

    async fn deliver(&self, events: &Batch, way: Way) -> Result<Delivered, DeliverError> {
        assert_eq!(way, Way::Bus, "the way of a bus");
        let _in_hand = InHand::take(&self.book, self.member, events);
        if let Some(before) = &self.before {
            before(events).await?;
        }
        let delivered = self.gate.deliver(events, way).await?;
        if let Some(after) = &self.after {
            after(events).await?;
        }
        Ok(delivered)
    }
}
