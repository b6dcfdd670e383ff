//! `esrs`.
//!
//! Handlers run in the transaction of the append, event by event. There are no snapshots.
//!
//! Its lock is not used: each waiting writer occupies a connection, so as many waiting writers as connections would block each
//! other. After a conflict, the command loads again instead.

use anyhow::Result;
use async_trait::async_trait;
use esrs::{
    Aggregate, AggregateState,
    handler::TransactionalEventHandler,
    manager::AggregateManager,
    rebuilder::{PgRebuilder, Rebuilder},
    store::{
        StoreEvent,
        postgres::{PgStore, PgStoreBuilder, PgStoreError, UuidFormat},
    },
};
use serde::{Deserialize, Serialize};
use sqlx_08::{PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

use crate::{
    contestant::{Contestant, Fate, Live, Sources, refused_text, text},
    database::{Address, SEEN, TOTAL},
};

struct Note;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum NoteEvent {
    Noted { text: String },
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Note {
    const NAME: &'static str = "note";
    type State = u64;
    type Command = Vec<String>;
    type Event = NoteEvent;
    type Error = Never;

    fn handle_command(_: &u64, texts: Vec<String>) -> Result<Vec<NoteEvent>, Never> {
        Ok(texts.into_iter().map(|text| NoteEvent::Noted { text }).collect())
    }

    fn apply_event(notes: u64, _: NoteEvent) -> u64 {
        notes + 1
    }
}

/// The read model, in the transaction of the events. Waits, then rejects events with the text of `refused_text`.
struct ReadModel;

#[async_trait]
impl TransactionalEventHandler<Note, PgStoreError, PgConnection> for ReadModel {
    async fn handle(&self, event: &StoreEvent<NoteEvent>, tx: &mut PgConnection) -> Result<(), PgStoreError> {
        let NoteEvent::Noted { text } = &event.payload;
        let id = event.aggregate_id.to_string();
        let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
        sqlx_08::query(TOTAL).bind(&id).bind(length).execute(&mut *tx).await?;
        sqlx_08::query(SEEN).bind(&id).bind(i64::from(event.sequence_number)).execute(&mut *tx).await?;
        if text.starts_with('r') {
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Err(PgStoreError::Sqlx(sqlx_08::Error::RowNotFound));
        }
        Ok(())
    }
}

pub struct Esrs {
    pool: PgPool,
    notes: AggregateManager<PgStore<Note>>,
}

impl Esrs {
    pub async fn open(address: &Address) -> Result<Self> {
        let pool = address.pool_08().await?;
        let store = PgStoreBuilder::new(pool.clone()).with_event_id_format(UuidFormat::V7).try_build().await?;
        Ok(Self { pool, notes: AggregateManager::new(store) })
    }
}

/// Returns whether another writer appended this version first.
fn conflict(error: &PgStoreError) -> bool {
    matches!(error, PgStoreError::Sqlx(sqlx_08::Error::Database(error)) if error.is_unique_violation())
}

async fn execute(notes: &AggregateManager<PgStore<Note>>, id: Uuid, texts: &[String]) -> Result<(), PgStoreError> {
    loop {
        let state = notes.load(id).await?.unwrap_or_else(|| AggregateState::with_id(id));
        match notes.handle_command(state, texts.to_vec()).await {
            Err(error) if conflict(&error) => {}
            // A rejection by the aggregate, which never rejects.
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn texts(events: usize) -> Vec<String> {
    (0..events).map(|_| text()).collect()
}

#[async_trait]
impl Contestant for Esrs {
    fn name(&self) -> &'static str {
        "esrs"
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        self.notes.handle_command(AggregateState::with_id(id), texts(1)).await??;
        Ok(())
    }

    async fn append(&self, id: Uuid, events: usize, _: usize) -> Result<()> {
        Ok(execute(&self.notes, id, &texts(events)).await?)
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        Ok(self.notes.load(id).await?.map_or(0, AggregateState::into_inner))
    }

    fn copies(&self) -> &'static [&'static str] {
        &["insert into note_events (id, aggregate_id, payload, occurred_on, sequence_number, version) \
           select gen_random_uuid(), t.id::uuid, payload, occurred_on, sequence_number, version \
           from unnest($1::text[]) as t (id), note_events where aggregate_id = $2::uuid order by t.id, sequence_number"]
    }

    fn follower(&self) -> Option<&'static str> {
        Some(
            "`TransactionalEventHandler` in the append's transaction; `PgRebuilder` from the first event, one aggregate at a time",
        )
    }

    async fn catch_up(&self, _: &str) -> Result<()> {
        let rebuilder = PgRebuilder::<Note>::new().with_transactional_event_handlers(vec![Box::new(ReadModel)]);
        Ok(rebuilder.by_aggregate_id(self.pool.clone()).await?)
    }

    async fn go_live(&self, _: &str, _: Sources) -> Result<Box<dyn Live>> {
        let store = PgStoreBuilder::new(self.pool.clone())
            .without_running_migrations()
            .add_transactional_event_handler(ReadModel)
            .try_build()
            .await?;
        Ok(Box::new(Following(AggregateManager::new(store))))
    }

    fn log(&self) -> &'static str {
        "select aggregate_id::text, sequence_number::bigint from note_events"
    }
}

struct Following(AggregateManager<PgStore<Note>>);

#[async_trait]
impl Live for Following {
    async fn command(&self, id: Uuid, events: usize, fate: Fate) -> Result<bool> {
        let Fate::RollBackAfter(_) = fate else {
            execute(&self.0, id, &texts(events)).await?;
            return Ok(true);
        };
        let texts: Vec<String> = (0..events).map(|_| refused_text()).collect();
        match execute(&self.0, id, &texts).await {
            Err(PgStoreError::Sqlx(sqlx_08::Error::RowNotFound)) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    fn rolls_back(&self) -> bool {
        true
    }
}
