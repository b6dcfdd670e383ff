//! `mire`.

use anyhow::Result;
use async_trait::async_trait;
use mire::{
    Aggregate, AggregateRoot, EventData, EventStore, EventStoreError, HandledEvent, ProjectionRunner, Snapshot,
    TransactionalBatchEventHandler,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    contestant::{Contestant, Fate, Live, Sources, text},
    database::{Address, SEEN_MANY, TOTALS},
};

#[derive(Debug, Clone, Serialize, Deserialize, EventData)]
#[serde(tag = "type")]
#[mire(entity = "note")]
enum NoteEvent {
    Noted { text: String },
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    notes: u64,
}

impl Aggregate for Note {
    type Event = NoteEvent;

    fn stream_category() -> &'static str {
        "note"
    }

    fn apply(&mut self, _: &NoteEvent) {
        self.notes += 1;
    }
}

/// The depth from which snapshots are used, and the number of events between them.
const SNAPSHOT_EVERY: usize = 100;

impl Snapshot for Note {
    const SNAPSHOT_VERSION: i32 = 1;
    const SNAPSHOT_FREQUENCY: i64 = 100;
}

/// The read model: two statements per page.
struct ReadModel;

impl TransactionalBatchEventHandler for ReadModel {
    type Aggregate = Note;

    async fn handle_batch(&self, events: Vec<HandledEvent<NoteEvent>>, tx: &mut sqlx::PgConnection) -> Result<()> {
        let ids: Vec<&str> = events.iter().map(|event| event.stream_id().trim_start_matches("note-")).collect();
        let mut lengths = Vec::with_capacity(events.len());
        for event in &events {
            let NoteEvent::Noted { text } = &event.event;
            lengths.push(i64::try_from(text.len())?);
        }
        let versions: Vec<i64> = events.iter().map(HandledEvent::stream_version).collect();
        sqlx::query(TOTALS).bind(&ids).bind(lengths).execute(&mut *tx).await?;
        sqlx::query(SEEN_MANY).bind(&ids).bind(versions).execute(&mut *tx).await?;
        Ok(())
    }
}

pub struct Mire {
    store: EventStore,
}

impl Mire {
    pub async fn open(address: &Address) -> Result<Self> {
        let store = EventStore::new(address.pool().await?);
        store.migrate().await?;
        Ok(Self { store })
    }

    fn runner(store: &EventStore, subscription: &str) -> ProjectionRunner {
        ProjectionRunner::builder(store.clone())
            .batch_size(500)
            .max_tracked_streams(100_000)
            .subscribe_transactional_batch(subscription, ReadModel)
            .build()
    }
}

fn record(root: &mut AggregateRoot<Note>, events: usize) {
    root.record_many((0..events).map(|_| NoteEvent::Noted { text: text() }));
}

/// Retries after conflicts, which the framework leaves to its caller.
async fn append(store: &EventStore, id: Uuid, events: usize, depth: usize) -> Result<()> {
    let id = id.to_string();
    loop {
        let saved = if depth < SNAPSHOT_EVERY {
            let mut root = store.load_or_default::<Note>(&id).await?;
            record(&mut root, events);
            store.save(&mut root).await
        } else {
            let mut root = store.load_or_default_snapshotted::<Note>(&id).await?;
            record(&mut root, events);
            store.save_snapshotting(&mut root).await
        };
        match saved {
            Err(EventStoreError::ConcurrencyConflict { .. }) => {}
            other => return Ok(other?),
        }
    }
}

#[async_trait]
impl Contestant for Mire {
    fn name(&self) -> &'static str {
        "mire"
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        let mut root = AggregateRoot::<Note>::new(&id.to_string());
        record(&mut root, 1);
        Ok(self.store.save(&mut root).await?)
    }

    async fn append(&self, id: Uuid, events: usize, depth: usize) -> Result<()> {
        append(&self.store, id, events, depth).await
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        Ok(self.store.load_or_default::<Note>(&id.to_string()).await?.state.notes)
    }

    async fn load_snapshot(&self, id: Uuid) -> Result<Option<u64>> {
        Ok(Some(self.store.load_or_default_snapshotted::<Note>(&id.to_string()).await?.state.notes))
    }

    fn copies(&self) -> &'static [&'static str] {
        &[
            "insert into es_streams (stream_id, stream_category, stream_version) \
             select replace(stream_id, $2, t.id), stream_category, stream_version from unnest($1::text[]) as t (id), es_streams \
             where stream_id in ('note-' || $2, 'note-' || $2 || '-snapshot')",
            "insert into es_events (stream_id, stream_version, event_type, data, metadata, stream_category, payload_size, \
             metadata_size) select replace(stream_id, $2, t.id), stream_version, event_type, data, metadata, stream_category, \
             payload_size, metadata_size from unnest($1::text[]) as t (id), es_events \
             where stream_id in ('note-' || $2, 'note-' || $2 || '-snapshot') order by t.id, global_position",
        ]
    }

    fn follower(&self) -> Option<&'static str> {
        Some("`ProjectionRunner` with `subscribe_transactional_batch`, 500 events per page, notified in the process")
    }

    async fn catch_up(&self, subscription: &str) -> Result<()> {
        Self::runner(&self.store, subscription).run(CancellationToken::new()).await
    }

    async fn go_live(&self, subscription: &str, _: Sources) -> Result<Box<dyn Live>> {
        let runner = Self::runner(&self.store, subscription);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let stop = stop.clone();
            async move {
                if let Err(error) = runner.run(stop).await {
                    eprintln!("mire runner failed: {error:#}");
                }
            }
        });
        Ok(Box::new(Following { store: self.store.clone(), _stop: stop.drop_guard(), _tasks: tasks }))
    }

    fn log(&self) -> &'static str {
        "select substr(stream_id, 6), stream_version from es_events where stream_category = 'note'"
    }
}

struct Following {
    store: EventStore,
    _stop: tokio_util::sync::DropGuard,
    _tasks: JoinSet<()>,
}

#[async_trait]
impl Live for Following {
    async fn command(&self, id: Uuid, events: usize, fate: Fate) -> Result<bool> {
        let (pause, commit) = match fate {
            Fate::Commit => {
                append(&self.store, id, events, 0).await?;
                return Ok(true);
            }
            Fate::CommitAfter(pause) => (pause, true),
            Fate::RollBackAfter(pause) => (pause, false),
        };
        loop {
            let mut scope = self.store.begin_transaction().await?;
            let mut root = scope.load_or_default::<Note>(&id.to_string()).await?;
            record(&mut root, events);
            match scope.save(&mut root).await {
                Err(EventStoreError::ConcurrencyConflict { .. }) => {
                    scope.rollback().await?;
                    continue;
                }
                other => other?,
            }
            tokio::time::sleep(pause).await;
            if commit {
                scope.commit().await?;
            } else {
                scope.rollback().await?;
            }
            return Ok(commit);
        }
    }

    fn rolls_back(&self) -> bool {
        true
    }
}
