//! Epoch in two configurations: the defaults, and without group commit and cache.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use async_trait::async_trait;
use epoch::{
    Aggregate, Batch, CommandContext, ExecuteError, Position, Repository,
    bus::Bus,
    handler::EventHandler,
    FastPath,
    snapshot::{SnapshotPolicy, SnapshotStore, Snapshots},
    store::StoreError,
};
use epoch_postgres::{
    HandlerError, PgBus, PgSnapshots, PgStore, PgSubscription, PgTx, Progress, Relay, TxError, connect, migrate, replay,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, migrate::Migrator, postgres::PgPoolOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    contestant::{Contestant, Fate, Live, Sources, text},
    database::{Address, POOL, SEEN_MANY, TOTALS},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Noted {
    text: String,
}

const NOTED: &str =
    r#"{"type":"record","name":"Noted","namespace":"bench","fields":[{"name":"text","type":"string"}]}"#;

epoch::events! {
    /// Events of a note.
    enum NoteEvent { Noted = [NOTED] }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Note {
    notes: u64,
}

/// A command that appends one event per text.
struct Write {
    texts: Vec<String>,
}

impl Write {
    fn of(events: usize) -> Self {
        Self { texts: (0..events).map(|_| text()).collect() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Note {
    const NAME: &'static str = "note";
    type Command = Write;
    type Event = NoteEvent;
    type Error = Never;

    fn decide(&self, command: &Write) -> Result<Vec<NoteEvent>, Never> {
        Ok(command.texts.iter().map(|text| Noted { text: text.clone() }.into()).collect())
    }

    fn evolve(&mut self, _: &NoteEvent) {
        self.notes += 1;
    }
}

/// The read model: two statements per batch.
struct ReadModel {
    name: &'static str,
}

#[async_trait]
impl EventHandler<PgTx> for ReadModel {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["note"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut ids = Vec::with_capacity(events.len());
        let mut lengths = Vec::with_capacity(events.len());
        let mut versions = Vec::with_capacity(events.len());
        for event in events {
            let NoteEvent::Noted(noted) = event.decode()?;
            ids.push(event.aggregate_id.to_string());
            lengths.push(i64::try_from(noted.text.len()).map_err(HandlerError::refused)?);
            versions.push(i64::try_from(event.version.get()).map_err(HandlerError::refused)?);
        }
        sqlx::query(TOTALS).bind(&ids).bind(lengths).execute(tx.connection()).await?;
        sqlx::query(SEEN_MANY).bind(&ids).bind(versions).execute(tx.connection()).await?;
        Ok(())
    }
}

const COPIES: &[&str] = &[
    "insert into epoch.events (aggregate, aggregate_id, version, event_id, event_name, schema, payload, \
     metadata, occurred_at, recorded_at) \
     select aggregate, t.id::uuid, version, gen_random_uuid(), event_name, schema, payload, metadata, occurred_at, recorded_at \
     from unnest($1::text[]) as t (id), epoch.events where aggregate_id = $2::uuid order by t.id, version",
];

const LOG: &str = "select aggregate_id::text, version from epoch.events";

async fn pool(address: &Address) -> Result<PgPool> {
    let pool = connect(PgPoolOptions::new().max_connections(POOL), address.options(), "epoch").await?;
    migrate(&pool, "epoch", &Migrator::DEFAULT).await?;
    Ok(pool)
}

/// The defaults: a repository with a cache, and grouped appends.
pub struct Epoch {
    store: PgStore,
    notes: Repository<Note, PgStore>,
    uncached: Repository<Note, PgStore>,
    snapshotted: Repository<Note, PgStore>,
    snapshots: PgSnapshots,
    /// The aggregates whose snapshots are known to exist.
    snapshot_ids: Mutex<HashSet<Uuid>>,
    /// The appender and the snapshot writer, which end when the last store is dropped.
    _tasks: JoinSet<()>,
}

impl Epoch {
    pub async fn open(address: &Address) -> Result<Self> {
        let pool = pool(address).await?;
        let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
        let (snapshots, writer) = Snapshots::new(Arc::new(PgSnapshots::new(pool.clone())));
        let mut tasks = JoinSet::new();
        tasks.spawn(appender.run());
        tasks.spawn(writer.run());
        let notes = Repository::new(store.clone());
        let uncached = Repository::new(store.clone()).with_cache(0);
        let snapshotted = uncached.clone().with_snapshots(&snapshots, SnapshotPolicy::Every(100));
        let snapshots = PgSnapshots::new(pool);
        Ok(Self { store, notes, uncached, snapshotted, snapshots, snapshot_ids: Mutex::default(), _tasks: tasks })
    }

    fn subscription(store: &PgStore, name: &str) -> Arc<PgSubscription> {
        // Subscriptions have constant names in a program; here, each round needs a new one.
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let progress = Progress::new(store.pool().clone());
        Arc::new(PgSubscription::new(Arc::new(ReadModel { name }), store.clone(), progress))
    }
}

#[async_trait]
impl Contestant for Epoch {
    fn name(&self) -> &'static str {
        "**Epoch**"
    }

    fn ours(&self) -> bool {
        true
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        self.notes.create(id, &Write::of(1), &CommandContext::new()).await?;
        Ok(())
    }

    async fn append(&self, id: Uuid, events: usize, _: usize) -> Result<()> {
        self.notes.execute(id, &Write::of(events), &CommandContext::new()).await?;
        Ok(())
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        Ok(self.uncached.load(id).await?.state.notes)
    }

    async fn load_snapshot(&self, id: Uuid) -> Result<Option<u64>> {
        let loaded = self.snapshotted.load(id).await?;
        if self.snapshot_ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            // A background task writes the snapshot after the load.
            while self.snapshots.newest(Note::NAME, id).await?.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(Some(loaded.state.notes))
    }

    fn copies(&self) -> &'static [&'static str] {
        COPIES
    }

    fn follower(&self) -> Option<&'static str> {
        Some("fast path before the command returns, in row 8 also relay and `PgBus`; batches in the gate's transaction")
    }

    async fn catch_up(&self, subscription: &str) -> Result<()> {
        replay(&self.store, &*Self::subscription(&self.store, subscription), Position::START).await?;
        Ok(())
    }

    async fn go_live(&self, subscription: &str, sources: Sources) -> Result<Box<dyn Live>> {
        // A separate store, because `self.store` must stay without subscriptions.
        let (store, appender) = PgStore::new(self.store.pool().clone(), FastPath::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(appender.run());
        sqlx::raw_sql(REFUSES_AT_COMMIT).execute(store.pool()).await?;
        let handler = Self::subscription(&store, subscription);
        let stop = CancellationToken::new();
        tasks.spawn(store.local().serve(handler.clone()));
        if sources == Sources::All {
            let bus = Arc::new(PgBus::connect(store.pool().clone(), "bench", subscription).await?);
            tasks.spawn(Relay::new(store.clone(), bus.clone(), "bench").run(stop.clone()));
            tasks.spawn({
                let stop = stop.clone();
                async move {
                    if let Err(error) = bus.consume(handler, stop).await {
                        eprintln!("epoch consumer failed: {error}");
                    }
                }
            });
        }
        let notes = Repository::new(store.clone());
        Ok(Box::new(Following { store, notes, stop, _tasks: tasks }))
    }

    fn log(&self) -> &'static str {
        LOG
    }
}

struct Following {
    store: PgStore,
    notes: Repository<Note, PgStore>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Executes a command in the caller's transaction. Retries conflicts without a limit, like the peers.
async fn in_transaction(
    store: &PgStore,
    notes: &Repository<Note, PgStore>,
    id: Uuid,
    events: usize,
    fate: Fate,
) -> Result<(), TxError> {
    let write = Arc::new(Write::of(events));
    loop {
        let done = store.transaction::<(), TxError, _>(|tx: &mut PgTx| {
            // The body may run several times, and its future may borrow only from the transaction.
            let (notes, write) = (notes.clone(), write.clone());
            async move { command(tx, &notes, id, &write, fate).await }.boxed()
        });
        match done.await {
            Err(error) if error.is_conflict() => {}
            other => return other,
        }
    }
}

async fn command(
    tx: &mut PgTx,
    notes: &Repository<Note, PgStore>,
    id: Uuid,
    write: &Write,
    fate: Fate,
) -> Result<(), TxError> {
    tx.execute(notes, id, write, &CommandContext::new()).await.map_err(|error| match error {
        ExecuteError::Store(error) => TxError::Store(error),
        other => TxError::Store(StoreError::Refused { detail: other.to_string() }),
    })?;
    match fate {
        Fate::Commit => {}
        Fate::CommitAfter(pause) => tokio::time::sleep(pause).await,
        Fate::RollBackAfter(pause) => {
            sqlx::query(REFUSED_AT_COMMIT).execute(tx.connection()).await?;
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Inserts a row that makes the commit fail, because its deferred constraint is checked after the events are written.
const REFUSED_AT_COMMIT: &str = "insert into public.refused_at_commit values (1)";
const REFUSES_AT_COMMIT: &str = "create table if not exists public.refused_at_commit (id bigint references \
     public.refused_at_commit (other) deferrable initially deferred, other bigint unique)";

#[async_trait]
impl Live for Following {
    async fn command(&self, id: Uuid, events: usize, fate: Fate) -> Result<bool> {
        let context = CommandContext::new();
        if fate == Fate::Commit {
            self.notes.execute(id, &Write::of(events), &context).await?;
            return Ok(true);
        }
        match in_transaction(&self.store, &self.notes, id, events, fate).await {
            Ok(()) => Ok(true),
            Err(TxError::Sql(_)) if matches!(fate, Fate::RollBackAfter(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn rolls_back(&self) -> bool {
        true
    }
}

/// Without group commit and cache: one transaction per command, on a state that is read from the store.
pub struct Plain {
    store: PgStore,
    notes: Repository<Note, PgStore>,
}

impl Plain {
    pub async fn open(address: &Address) -> Result<Self> {
        // The appender is not needed: transactions append directly.
        let (store, _) = PgStore::new(pool(address).await?, FastPath::new());
        let notes = Repository::new(store.clone()).with_cache(0);
        Ok(Self { store, notes })
    }

    async fn execute(&self, id: Uuid, events: usize) -> Result<()> {
        Ok(in_transaction(&self.store, &self.notes, id, events, Fate::Commit).await?)
    }
}

#[async_trait]
impl Contestant for Plain {
    fn name(&self) -> &'static str {
        "Epoch, plain"
    }

    fn ours(&self) -> bool {
        true
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        self.execute(id, 1).await
    }

    async fn append(&self, id: Uuid, events: usize, _: usize) -> Result<()> {
        self.execute(id, events).await
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        Ok(self.notes.load(id).await?.state.notes)
    }

    fn copies(&self) -> &'static [&'static str] {
        COPIES
    }

    fn log(&self) -> &'static str {
        LOG
    }
}
