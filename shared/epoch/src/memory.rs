//! A store, a gate and a bus in memory, for tests and for learning.
//!
//! The problem: a domain should be tried out without servers, and behave as it will with them.
//! The invariant: they pass the same conformance suites as the others; only durability is missing.

mod bus;
mod kept;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use uuid::Uuid;

pub use self::{
    bus::MemoryBus,
    kept::{MemorySnapshots, MemoryStates},
};
use crate::{
    aggregate::Aggregate,
    bounds::{Bounds, Positions, Versions},
    cache::Loaded,
    context::Metadata,
    envelope::{Batch, Envelope, StreamKey},
    gate::{Cursor, Parked, Verdict, Way},
    handler::{DeliverError, Delivered, EventHandler, Subscription},
    local::LocalBus,
    state::{Change, StateStore},
    store::{Append, Appended, Appender, CommandRecord, FoundCommand, StoreError, Streamer},
    timestamp::Timestamp,
    version::{Position, Version},
};

/// Locks even when another thread panicked while it held the lock: every change here is whole before it is visible.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Log {
    events: Vec<Arc<Envelope>>,
    streams: HashMap<StreamKey, Vec<usize>>,
    commands: HashMap<Uuid, (Vec<u8>, CommandRecord)>,
}

impl Log {
    fn version(&self, stream: &StreamKey) -> Version {
        Version::new(self.streams.get(stream).map_or(0, |events| events.len() as u64))
    }

    fn last_event(&self, stream: &StreamKey) -> Option<Uuid> {
        self.events.get(*self.streams.get(stream)?.last()?).map(|event| event.event_id)
    }

    fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Option<FoundCommand> {
        self.commands.get(&id).map(|(known, record)| {
            if known == fingerprint { FoundCommand::Same(record.clone()) } else { FoundCommand::Other }
        })
    }
}

/// An event store in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    log: Arc<Mutex<Log>>,
    local: LocalBus,
    /// Held while a state follows its events, so that states are written in the order of their versions.
    state_writer: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// An empty store without local subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that hands what it commits to `local`.
    #[must_use]
    pub fn with_local(local: LocalBus) -> Self {
        Self { local, ..Self::default() }
    }

    fn append_now(&self, append: Append) -> Appended {
        let mut log = lock(&self.log);
        let stream = StreamKey { aggregate: append.aggregate.into(), id: append.aggregate_id };
        if let Some(idempotency) = &append.context.idempotency {
            match log.find_command(append.context.command_id, &idempotency.fingerprint) {
                Some(FoundCommand::Same(record)) => return Appended::Repeated(record),
                Some(FoundCommand::Other) => return Appended::Reused,
                None => {}
            }
        }
        let actual = log.version(&stream);
        if actual != append.expected || (append.previous.is_some() && append.previous != log.last_event(&stream)) {
            return Appended::Conflict { actual };
        }
        let metadata = Metadata::from(&append.context);
        let recorded_at = Timestamp::now();
        let mut committed = Vec::with_capacity(append.events.len());
        let mut version = actual;
        for event in append.events {
            version = version.next();
            let envelope = Arc::new(Envelope {
                event_id: event.event_id,
                aggregate: append.aggregate.into(),
                aggregate_id: append.aggregate_id,
                version,
                position: Position::new(log.events.len() as u64 + 1),
                event_name: event.name.into(),
                schema: event.encoded.schema,
                payload: event.encoded.payload,
                occurred_at: append.context.occurred_at,
                recorded_at,
                metadata: metadata.clone(),
            });
            let index = log.events.len();
            log.events.push(Arc::clone(&envelope));
            log.streams.entry(stream.clone()).or_default().push(index);
            committed.push(envelope);
        }
        if let Some(idempotency) = append.context.idempotency {
            let record = CommandRecord { aggregate_id: append.aggregate_id, version };
            log.commands.insert(append.context.command_id, (idempotency.fingerprint, record));
        }
        // Under the lock, so that local subscriptions get commits in order.
        let receipt = self.local.committed(&committed);
        Appended::Committed { events: committed, receipt }
    }
}

/// How many events are taken out of the log at a time.
const PAGE: usize = 256;

type Page = Vec<Arc<Envelope>>;

/// Streams what `page` gives for ever smaller bounds.
fn paged<P: Copy + Ord + Default + Send + 'static>(
    bounds: Bounds<P>,
    place: impl Fn(&Envelope) -> P + Send + 'static,
    page: impl Fn(&Bounds<P>, usize) -> Page + Send + 'static,
) -> BoxStream<'static, Result<Envelope, StoreError>> {
    stream::unfold(bounds.rest(bounds.after, 0), move |rest| {
        let page = rest.map(|bounds| {
            let limit = bounds.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE).min(PAGE);
            let events = page(&bounds, limit);
            let rest = events.last().and_then(|last| bounds.rest(place(last), events.len() as u64));
            (stream::iter(events), rest)
        });
        std::future::ready(page)
    })
    .flatten()
    .map(|event| Ok(Envelope::clone(&event)))
    .boxed()
}

fn index(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Streamer for MemoryStore {
    fn read(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let (log, key) = (Arc::clone(&self.log), StreamKey { aggregate: aggregate.into(), id });
        let page = move |bounds: &Versions, limit: usize| -> Page {
            let log = lock(&log);
            let places = log.streams.get(&key).map(Vec::as_slice).unwrap_or_default();
            let events = places.iter().skip(index(bounds.after.get())).filter_map(|&place| log.events.get(place));
            events.take_while(|event| bounds.contains(event.version)).take(limit).cloned().collect()
        };
        paged(bounds, |event| event.version, page)
    }

    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let (log, aggregates) = (Arc::clone(&self.log), aggregates.to_vec());
        let end = Position::new(lock(&log).events.len() as u64);
        let page = move |bounds: &Positions, limit: usize| -> Page {
            let log = lock(&log);
            let events = log.events.iter().skip(index(bounds.after.get()));
            let within = events.take_while(|event| bounds.contains(event.position));
            let wanted = |event: &&Arc<Envelope>| aggregates.is_empty() || aggregates.contains(&&*event.aggregate);
            within.filter(wanted).take(limit).cloned().collect()
        };
        paged(bounds.up_to(end), |event| event.position, page)
    }
}

impl Appender for MemoryStore {
    /// There is no transaction to write with.
    type Executor = ();

    fn append(&self, append: Append) -> impl Future<Output = Result<Appended, StoreError>> + Send {
        std::future::ready(Ok(self.append_now(append)))
    }

    /// Nothing here outlives the process, so the state is written after its events; when it can't be, it stays behind and is
    /// folded on at the next load.
    async fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, ()>,
        change: &Change<A>,
    ) -> Result<Appended, StoreError> {
        let _turn = self.state_writer.lock().await;
        let appended = self.append_now(append);
        if matches!(appended, Appended::Committed { .. }) {
            change.write(states, &mut ()).await?;
        }
        Ok(appended)
    }

    async fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, ()>,
        id: Uuid,
    ) -> Result<Option<Loaded<A>>, StoreError> {
        states.get_by_id(&mut (), id).await
    }

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<FoundCommand>, StoreError> {
        Ok(lock(&self.log).find_command(id, fingerprint))
    }
}

#[derive(Default)]
struct Progress {
    cursors: HashMap<StreamKey, Cursor>,
    /// What waits for an event before it, or for somebody who says `retry`.
    queues: HashMap<StreamKey, BTreeMap<Version, Arc<Envelope>>>,
}

/// A handler behind a gate whose cursors are in memory.
pub struct MemorySubscription<H> {
    handler: H,
    progress: tokio::sync::Mutex<Progress>,
}

impl<H: EventHandler<()>> MemorySubscription<H> {
    /// A subscription that has seen nothing.
    pub fn new(handler: H) -> Self {
        Self { handler, progress: tokio::sync::Mutex::default() }
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Applies what waited only for what has come now; gives how many.
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
                        tracing::warn!(subscription = self.handler.name(), %error, "parked");
                        cursor.parked = Some(Parked::Failed);
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

    /// How far it is with an aggregate.
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

    async fn deliver(&self, events: &Batch, way: Way) -> Result<Delivered, DeliverError> {
        if way == Way::Local && !self.handler.locally() {
            return Ok(Delivered { gap: events.len(), ..Delivered::default() });
        }
        // The lock is the transaction: cursor and effects move together.
        let mut progress = self.progress.lock().await;
        let mut delivered = Delivered::default();
        for event in events {
            let stream = event.stream();
            let mut cursor = progress.cursors.get(&stream).copied().unwrap_or_default();
            let before = cursor;
            match cursor.judge(event.version, way) {
                Verdict::Duplicate => delivered.duplicate += 1,
                Verdict::Gap => delivered.gap += 1,
                Verdict::Queue => {
                    delivered.queued += 1;
                    progress.queues.entry(stream.clone()).or_default().insert(event.version, Arc::clone(event));
                }
                Verdict::Apply => match self.handler.handle(&mut (), std::slice::from_ref(event)).await {
                    Ok(()) => delivered.applied += 1,
                    Err(error) => {
                        tracing::warn!(subscription = self.name(), %error, "parked");
                        delivered.queued += 1;
                        cursor = Cursor { version: before.version, parked: Some(Parked::Failed) };
                        progress.queues.entry(stream.clone()).or_default().insert(event.version, Arc::clone(event));
                    }
                },
            }
            if cursor.parked == Some(Parked::Gap) {
                delivered.applied += self.release(&mut progress, &stream, &mut cursor).await;
            }
            progress.cursors.insert(stream, cursor);
        }
        Ok(delivered)
    }
}
