//! `cqrs-es` with `postgres-es`.
//!
//! Of its three stores, the one without snapshots is used for short streams and the one with snapshots for long ones.
//!
//! The states in its snapshots count every event twice: a sink applies an event when it is written, and the store applies it again
//! to the stored state. This costs no time, so it is measured unchanged, and row 5 reports the wrong state.
//!
//! Queries are called in the process after each commit, outside the transaction. A lost call is not repeated.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use cqrs_es::{
    Aggregate, AggregateError, CqrsFramework, DomainEvent, EventEnvelope, EventStore, Query,
    event_sink::EventSink,
    persist::{PersistedEventStore, QueryReplay},
};
use postgres_es::{PostgresCqrs, PostgresEventRepository};
use serde::{Deserialize, Serialize};
use sqlx_08::PgPool;
use uuid::Uuid;

use crate::{
    contestant::{Contestant, Fate, Live, Sources, text},
    database::{Address, SEEN, TOTAL},
};

/// The tables from its documentation.
const TABLES: &str = "create table if not exists events (aggregate_type text not null, aggregate_id text not null, \
     sequence bigint check (sequence >= 0) not null, event_type text not null, event_version text not null, \
     payload json not null, metadata json not null, primary key (aggregate_type, aggregate_id, sequence)); \
     create table if not exists snapshots (aggregate_type text not null, aggregate_id text not null, \
     last_sequence bigint check (last_sequence >= 0) not null, current_snapshot bigint check (current_snapshot >= 0) not null, \
     payload json not null, primary key (aggregate_type, aggregate_id, last_sequence))";

/// The number of events between snapshots, and the depth from which snapshots are used.
const SNAPSHOT_EVERY: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum NoteEvent {
    Noted { text: String },
}

impl DomainEvent for NoteEvent {
    fn event_type(&self) -> String {
        "Noted".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Note {
    notes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Note {
    const TYPE: &'static str = "note";
    type Command = usize;
    type Event = NoteEvent;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, events: usize, (): &(), sink: &EventSink<Self>) -> Result<(), Never> {
        for _ in 0..events {
            sink.write(NoteEvent::Noted { text: text() }, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, _: NoteEvent) {
        self.notes += 1;
    }
}

/// The read model: one transaction per commit.
struct ReadModel {
    pool: PgPool,
}

impl ReadModel {
    async fn write(&self, id: &str, events: &[EventEnvelope<Note>]) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        for event in events {
            let NoteEvent::Noted { text } = &event.payload;
            sqlx_08::query(TOTAL).bind(id).bind(i64::try_from(text.len())?).execute(&mut *tx).await?;
            sqlx_08::query(SEEN).bind(id).bind(i64::try_from(event.sequence)?).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

#[async_trait]
impl Query<Note> for ReadModel {
    async fn dispatch(&self, id: &str, events: &[EventEnvelope<Note>]) {
        // `dispatch` cannot return an error.
        if let Err(error) = self.write(id, events).await {
            eprintln!("cqrs-es read model failed: {error:#}");
        }
    }
}

pub struct CqrsEs {
    pool: PgPool,
    short: PostgresCqrs<Note>,
    long: PostgresCqrs<Note>,
}

impl CqrsEs {
    pub async fn open(address: &Address) -> Result<Self> {
        let pool = address.pool_08().await?;
        sqlx_08::raw_sql(TABLES).execute(&pool).await?;
        let short = postgres_es::postgres_cqrs(pool.clone(), vec![], ());
        let long = postgres_es::postgres_snapshot_cqrs(pool.clone(), vec![], SNAPSHOT_EVERY, ());
        Ok(Self { pool, short, long })
    }
}

/// Retries after conflicts, which the framework leaves to its caller.
async fn execute<S: EventStore<Note>>(cqrs: &CqrsFramework<Note, S>, id: Uuid, events: usize) -> Result<()> {
    let id = id.to_string();
    loop {
        match cqrs.execute(&id, events).await {
            Err(AggregateError::AggregateConflict) => {}
            other => return Ok(other?),
        }
    }
}

#[async_trait]
impl Contestant for CqrsEs {
    fn name(&self) -> &'static str {
        "cqrs-es"
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        execute(&self.short, id, 1).await
    }

    async fn append(&self, id: Uuid, events: usize, depth: usize) -> Result<()> {
        execute(if depth < SNAPSHOT_EVERY { &self.short } else { &self.long }, id, events).await
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        let store = PersistedEventStore::<_, Note>::new_event_store(PostgresEventRepository::new(self.pool.clone()));
        let mut loaded = store.load_aggregate(&id.to_string()).await?;
        Ok(cqrs_es::AggregateContext::aggregate(&mut loaded).notes)
    }

    async fn load_snapshot(&self, id: Uuid) -> Result<Option<u64>> {
        let repository = PostgresEventRepository::new(self.pool.clone());
        let store = PersistedEventStore::<_, Note>::new_snapshot_store(repository, SNAPSHOT_EVERY);
        let mut loaded = store.load_aggregate(&id.to_string()).await?;
        Ok(Some(cqrs_es::AggregateContext::aggregate(&mut loaded).notes))
    }

    fn copies(&self) -> &'static [&'static str] {
        &[
            "insert into events select aggregate_type, t.id, sequence, event_type, event_version, payload, metadata \
             from unnest($1::text[]) as t (id), events where aggregate_type = 'note' and aggregate_id = $2 \
             order by t.id, sequence",
            "insert into snapshots select aggregate_type, t.id, last_sequence, current_snapshot, payload \
             from unnest($1::text[]) as t (id), snapshots where aggregate_type = 'note' and aggregate_id = $2",
        ]
    }

    fn follower(&self) -> Option<&'static str> {
        Some("`Query` after commit, outside the transaction; `QueryReplay` from the first event, event by event")
    }

    async fn catch_up(&self, _: &str) -> Result<()> {
        let repository = PostgresEventRepository::new(self.pool.clone()).with_streaming_channel_size(1_000);
        QueryReplay::new(repository, ReadModel { pool: self.pool.clone() }).replay_all().await?;
        Ok(())
    }

    async fn go_live(&self, _: &str, _: Sources) -> Result<Box<dyn Live>> {
        let query = ReadModel { pool: self.pool.clone() };
        Ok(Box::new(Following(Arc::new(postgres_es::postgres_cqrs(self.pool.clone(), vec![Box::new(query)], ())))))
    }

    fn log(&self) -> &'static str {
        "select aggregate_id, sequence from events"
    }
}

struct Following(Arc<PostgresCqrs<Note>>);

#[async_trait]
impl Live for Following {
    async fn command(&self, id: Uuid, events: usize, _: Fate) -> Result<bool> {
        execute(&self.0, id, events).await?;
        Ok(true)
    }

    fn rolls_back(&self) -> bool {
        false
    }
}
