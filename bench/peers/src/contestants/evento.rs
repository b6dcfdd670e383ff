//! `evento` with `evento-sql`.
//!
//! Write models keep their rows in memory, as in its documentation. To miss no event, a subscription reads only events that are older
//! than a margin, which is left at its default.

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use evento::{
    Executor, Postgres, ProjectionAggregate, WriteError,
    metadata::Event,
    migrator::{Migrate, Plan},
    projection::Projection,
    subscription::{Context, Subscription, SubscriptionBuilder},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    contestant::{Contestant, Fate, Live, Sources, text},
    database::{Address, SEEN, TOTAL},
};

#[evento::aggregate(name = "bench/Note")]
pub enum Note {
    Noted { text: String },
}

/// The write model: one row per loaded aggregate, in memory.
#[evento::projection(id = id)]
#[evento::snapshot(memory)]
struct WriteModel {
    id: String,
    notes: u64,
}

/// The model for replays, which stores nothing.
#[evento::projection]
#[evento::snapshot(none)]
struct ReplayModel {
    notes: u64,
}

/// The model for loads from snapshots in the database.
#[evento::projection(name = "bench/SnapshotModel", bitcode::Encode, bitcode::Decode)]
struct SnapshotModel {
    notes: u64,
}

#[evento::handler]
async fn write_model(event: Event<Noted>, row: &mut WriteModel) -> Result<()> {
    row.id = event.aggregate_id.to_owned();
    row.notes += 1;
    Ok(())
}

#[evento::handler]
async fn replay_model(_event: Event<Noted>, row: &mut ReplayModel) -> Result<()> {
    row.notes += 1;
    Ok(())
}

#[evento::handler]
async fn snapshot_model(_event: Event<Noted>, row: &mut SnapshotModel) -> Result<()> {
    row.notes += 1;
    Ok(())
}

/// The read model, event by event, outside any transaction of the subscription.
#[evento::subscription]
async fn read_model<E: Executor>(context: &Context<'_, E>, event: Event<Noted>) -> Result<()> {
    let pool: PgPool = context.extract();
    let mut tx = pool.begin().await?;
    let length = i64::try_from(event.data.text.len())?;
    sqlx::query(TOTAL).bind(&event.aggregate_id).bind(length).execute(&mut *tx).await?;
    sqlx::query(SEEN).bind(&event.aggregate_id).bind(i64::from(event.version)).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

pub struct Evento {
    pool: PgPool,
    executor: Postgres,
}

impl Evento {
    pub async fn open(address: &Address) -> Result<Self> {
        let pool = address.pool().await?;
        let mut connection = pool.acquire().await?;
        evento::sql_migrator::new::<sqlx::Postgres>()?.run(&mut *connection, &Plan::apply_all()).await?;
        drop(connection);
        Ok(Self { executor: pool.clone().into(), pool })
    }

    fn subscription(&self, name: &str) -> SubscriptionBuilder<Postgres> {
        SubscriptionBuilder::new(name).data(self.pool.clone()).handler(read_model()).chunk_size(1_000)
    }
}

/// Retries after conflicts, which the framework leaves to its caller.
async fn append(executor: &Postgres, id: Uuid, events: usize) -> Result<()> {
    let id = id.to_string();
    loop {
        let loaded: Option<WriteModel> =
            Projection::new::<Note>().handler(write_model()).load(&id).execute(executor).await?;
        let mut writer = match loaded {
            Some(row) => row.write()?,
            None => evento::append(&id),
        };
        for _ in 0..events {
            writer.event(&Noted { text: text() });
        }
        match writer.commit(executor).await {
            Err(WriteError::InvalidOriginalVersion) => {}
            other => {
                other?;
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Contestant for Evento {
    fn name(&self) -> &'static str {
        "evento"
    }

    async fn create(&self, id: Uuid) -> Result<()> {
        evento::append(id.to_string()).event(&Noted { text: text() }).commit(&self.executor).await?;
        Ok(())
    }

    async fn append(&self, id: Uuid, events: usize, _: usize) -> Result<()> {
        append(&self.executor, id, events).await
    }

    async fn replay(&self, id: Uuid) -> Result<u64> {
        let loaded: Option<ReplayModel> =
            Projection::new::<Note>().handler(replay_model()).load(id.to_string()).execute(&self.executor).await?;
        Ok(loaded.context("aggregate not found")?.notes)
    }

    async fn load_snapshot(&self, id: Uuid) -> Result<Option<u64>> {
        let loaded: Option<SnapshotModel> =
            Projection::new::<Note>().handler(snapshot_model()).load(id.to_string()).execute(&self.executor).await?;
        Ok(Some(loaded.context("aggregate not found")?.notes))
    }

    fn copies(&self) -> &'static [&'static str] {
        // Ids are ULIDs: 26 characters from an alphabet that includes the hexadecimal digits.
        &["insert into event (id, name, aggregator_type, aggregator_id, version, data, metadata, routing_key, tenant, \
           timestamp, timestamp_subsec) \
           select '0' || left(upper(replace(gen_random_uuid()::text, '-', '')), 25), name, aggregator_type, t.id, version, data, \
           metadata, routing_key, tenant, timestamp, timestamp_subsec \
           from unnest($1::text[]) as t (id), event where aggregator_type = 'bench/Note' and aggregator_id = $2 \
           order by t.id, version"]
    }

    fn follower(&self) -> Option<&'static str> {
        Some("`SubscriptionBuilder`, chunks of 1,000, event by event; delayed by its stability margin of 1 s")
    }

    async fn catch_up(&self, subscription: &str) -> Result<()> {
        self.subscription(subscription).run_once(&self.executor).await
    }

    async fn go_live(&self, subscription: &str, _: Sources) -> Result<Box<dyn Live>> {
        let subscription = self.subscription(subscription).start(&self.executor).await?;
        Ok(Box::new(Following { executor: self.executor.clone(), subscription }))
    }

    fn log(&self) -> &'static str {
        "select aggregator_id, version::bigint from event where aggregator_type = 'bench/Note'"
    }
}

struct Following {
    executor: Postgres,
    subscription: Subscription,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.subscription.stop();
    }
}

#[async_trait]
impl Live for Following {
    async fn command(&self, id: Uuid, events: usize, _: Fate) -> Result<bool> {
        append(&self.executor, id, events).await?;
        Ok(true)
    }

    fn rolls_back(&self) -> bool {
        false
    }
}
