//! `eventastic_postgres`.
//!
//! It writes a snapshot at every save and reads it at every load. It has no order across aggregates and no read models, but an outbox
//! for side effects.

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use eventastic::{
    aggregate::{Aggregate, Root, SaveError, SideEffect},
    event::DomainEvent,
    repository::RepositoryError,
};
use eventastic_postgres::{NoEncryption, PostgresRepository, SideEffectDbError, SideEffectStorage, TableConfig};
use serde::{Deserialize, Serialize};
use sqlx_08::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    contestant::{Contestant, text},
    database::Address,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    event_id: Uuid,
    note_id: Uuid,
    text: String,
}

impl DomainEvent for Noted {
    type EventId = Uuid;

    fn id(&self) -> &Uuid {
        &self.event_id
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    id: Uuid,
    notes: u64,
}

/// The empty set of side effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NoEffect {
    id: Uuid,
}

impl SideEffect for NoEffect {
    type SideEffectId = Uuid;

    fn id(&self) -> &Uuid {
        &self.id
    }
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Note {
    const SNAPSHOT_VERSION: u64 = 1;
    type AggregateId = Uuid;
    type DomainEvent = Noted;
    type ApplyError = Never;
    type SideEffect = NoEffect;

    fn aggregate_id(&self) -> &Uuid {
        &self.id
    }

    fn apply_new(event: &Noted) -> Result<Self, Never> {
        Ok(Self { id: event.note_id, notes: 1 })
    }

    fn apply(&mut self, _: &Noted) -> Result<(), Never> {
        self.notes += 1;
        Ok(())
    }

    fn side_effects(&self, _: &Noted) -> Option<Vec<NoEffect>> {
        None
    }
}

#[derive(Clone)]
struct NoOutbox;

#[async_trait]
impl<E: Send + 'static> SideEffectStorage<E, NoEffect> for NoOutbox {
    async fn store_side_effects(
        &self,
        _: &mut Transaction<'_, Postgres>,
        _: Vec<NoEffect>,
    ) -> Result<(), SideEffectDbError<E, serde_json::Error>> {
        Ok(())
    }
}

pub struct Eventastic {
    notes: PostgresRepository<Note, NoOutbox, NoEncryption>,
    /// Deletes snapshots, for which there is no function.
    pool: PgPool,
}

impl Eventastic {
    pub async fn open(address: &Address) -> Result<Self> {
        let tables = TableConfig::new("events", "snapshots");
        let (options, pool) = (address.options_08(), Address::pool_options_08());
        let notes = PostgresRepository::new(options, pool, tables, NoOutbox, NoEncryption).await?;
        notes.run_migrations().await?;
        let pool = Address::pool_options_08().max_connections(1).connect_with(address.options_08()).await?;
        Ok(Self { notes, pool })
    }

    async fn load(&self, id: Uuid) -> Result<u64> {
        use eventastic::repository::Repository;
        Ok(self.notes.load(&id).await.map_err(|error| anyhow!("loading: {error}"))?.state().notes)
    }
}

fn noted(id: Uuid) -> Noted {
    Noted { event_id: Uuid::now_v7(), note_id: id, text: text() }
}

#[async_trait]
impl Contestant for Eventastic {
    fn name(&self) -> &'static str {
        "eventastic"
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        let mut note = Note::record_new(noted(id))?;
        let mut transaction = self.notes.begin_transaction().await?;
        transaction.store(&mut note).await.map_err(|error| anyhow!("saving: {error}"))?;
        Ok(transaction.commit().await?)
    }

    async fn append(&self, id: Uuid, events: usize, _: usize) -> Result<()> {
        loop {
            let mut transaction = self.notes.begin_transaction().await?;
            let (mut note, rest) = match transaction.get(&id).await {
                Ok(note) => (note, events),
                Err(RepositoryError::AggregateNotFound) => (Note::record_new(noted(id))?, events.saturating_sub(1)),
                Err(error) => return Err(anyhow!("loading: {error}")),
            };
            for _ in 0..rest {
                note.record_that(noted(id))?;
            }
            match transaction.store(&mut note).await {
                Ok(()) => return Ok(transaction.commit().await?),
                Err(SaveError::OptimisticConcurrency(..)) => transaction.rollback().await?,
                Err(error) => return Err(anyhow!("saving: {error}")),
            }
        }
    }

    async fn forget_snapshot(&self, id: Uuid) -> Result<()> {
        sqlx_08::query("delete from snapshots where aggregate_id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        self.load(id).await
    }

    async fn load_snapshot(&self, id: Uuid) -> Result<Option<u64>> {
        self.load(id).await.map(Some)
    }

    fn copies(&self) -> &'static [&'static str] {
        &[
            "insert into events (aggregate_id, version, event_id, event, created_at) \
             select t.id::uuid, version, gen_random_uuid(), event, created_at \
             from unnest($1::text[]) as t (id), events where aggregate_id = $2::uuid order by t.id, version",
            // The state contains the aggregate's id.
            "insert into snapshots (aggregate_id, aggregate, version, snapshot_version, created_at) \
             select t.id::uuid, convert_to(replace(convert_from(aggregate, 'UTF8'), $2, t.id), 'UTF8'), version, \
             snapshot_version, created_at from unnest($1::text[]) as t (id), snapshots where aggregate_id = $2::uuid",
        ]
    }

    fn log(&self) -> &'static str {
        "select aggregate_id::text, version from events"
    }
}
