//! An in-memory event store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use uuid::Uuid;

use super::lock::lock;
use crate::{
    aggregate::{Aggregate, VersionedState},
    delivery::fast_path::FastPath,
    event::{
        Metadata,
        envelope::{Envelope, StreamKey},
        version::{Position, Version},
    },
    store::{
        Append, AppendOutcome, Appender, CommandLookup, CommandRecord, StoreError, Streamer,
        bounds::{Bounds, Positions, Versions},
        state::{Change, StateStore},
    },
    time::timestamp::Timestamp,
};

#[derive(Default)]
struct Log {
    events: Vec<Arc<Envelope>>,
    /// The indexes of each stream's events in `events`.
    streams: HashMap<StreamKey, Vec<usize>>,
    commands: HashMap<Uuid, StoredCommand>,
}

struct StoredCommand {
    fingerprint: Vec<u8>,
    record: CommandRecord,
}

impl Log {
    fn version(&self, stream: &StreamKey) -> Version {
        Version::new(self.streams.get(stream).map_or(0, |events| events.len() as u64))
    }

    fn last_event(&self, stream: &StreamKey) -> Option<Uuid> {
        self.events.get(*self.streams.get(stream)?.last()?).map(|event| event.event_id)
    }

    fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Option<CommandLookup> {
        let stored = self.commands.get(&id)?;
        Some(if stored.fingerprint == fingerprint {
            CommandLookup::Same(stored.record.clone())
        } else {
            CommandLookup::Other
        })
    }
}

/// An event store in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    log: Arc<Mutex<Log>>,
    fast_path: FastPath,
    /// Held from the append to the write of its state, so that states are written in version order.
    state_writer: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// Creates an empty store without a fast path.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store that dispatches commits to `fast_path`.
    #[must_use]
    pub fn with_fast_path(fast_path: FastPath) -> Self {
        Self { fast_path, ..Self::default() }
    }

    fn append_now(&self, append: Append) -> AppendOutcome {
        let mut log = lock(&self.log);
        let stream = StreamKey { aggregate: append.aggregate.into(), id: append.aggregate_id };
        if let Some(idempotency) = &append.context.idempotency {
            match log.find_command(append.context.command_id, &idempotency.fingerprint) {
                Some(CommandLookup::Same(record)) => return AppendOutcome::Repeated(record),
                Some(CommandLookup::Other) => return AppendOutcome::Reused,
                None => {}
            }
        }
        let actual = log.version(&stream);
        if actual != append.expected || (append.previous.is_some() && append.previous != log.last_event(&stream)) {
            return AppendOutcome::Conflict { actual };
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
            let stored = StoredCommand { fingerprint: idempotency.fingerprint, record };
            log.commands.insert(append.context.command_id, stored);
        }
        // Dispatched under the lock, so that subscriptions receive commits in order.
        let receipt = self.fast_path.dispatch(&committed);
        AppendOutcome::Committed { events: committed, receipt }
    }
}

/// How many events are read under one lock.
const PAGE: usize = 256;

type Page = Vec<Arc<Envelope>>;

/// Streams the pages of a range; `page` returns the next events within the remaining bounds.
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

/// Converts a count of events to an index, saturating.
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
            let indexes = log.streams.get(&key).map(Vec::as_slice).unwrap_or_default();
            let events = indexes.iter().skip(index(bounds.after.get())).filter_map(|&index| log.events.get(index));
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
            let selected = |event: &&Arc<Envelope>| aggregates.is_empty() || aggregates.contains(&&*event.aggregate);
            within.filter(selected).take(limit).cloned().collect()
        };
        paged(bounds.up_to(end), |event| event.position, page)
    }
}

impl Appender for MemoryStore {
    /// There are no transactions in memory.
    type Executor = ();

    fn append(&self, append: Append) -> impl Future<Output = Result<AppendOutcome, StoreError>> + Send {
        std::future::ready(Ok(self.append_now(append)))
    }

    /// Writes the state after its events, since neither survives the process. If writing fails, the state lags until
    /// the next commit and is folded forward on load.
    async fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, ()>,
        change: &Change<A>,
    ) -> Result<AppendOutcome, StoreError> {
        let _writer = self.state_writer.lock().await;
        let appended = self.append_now(append);
        if matches!(appended, AppendOutcome::Committed { .. }) {
            change.write(states, &mut ()).await?;
        }
        Ok(appended)
    }

    async fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, ()>,
        id: Uuid,
    ) -> Result<Option<VersionedState<A>>, StoreError> {
        states.get_by_id(&mut (), id).await
    }

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<CommandLookup>, StoreError> {
        Ok(lock(&self.log).find_command(id, fingerprint))
    }
}
