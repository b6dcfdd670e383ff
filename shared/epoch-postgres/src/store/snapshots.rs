//! Snapshots in the table `snapshots`.
//!
//! The problem and the invariants are those of [`epoch::snapshot`]. Every query is one look-up by the primary key; batches are
//! written in the order of the keys, so that two processes wait for each other but never in a circle.

use async_trait::async_trait;
use bytes::Bytes;
use epoch::{
    Version,
    event::SchemaId,
    snapshot::{Since, SinceEvent, Snapshot, SnapshotStore},
    store::StoreError,
};
use futures::TryStreamExt;
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::{count, number},
    store::loader::{BUDGET, SHORT},
};

/// Keeps snapshots in the service's own schema.
#[derive(Debug, Clone)]
pub struct PgSnapshots {
    pool: PgPool,
}

impl PgSnapshots {
    /// The snapshots of the schema that `pool` sees.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

pub(crate) const NEWEST: &str =
    "select version, schema, state from snapshots where aggregate_id = $1 and aggregate = $2";

/// The snapshot, and the first events from its own last one on: a snapshot is seldom further behind than its policy allows.
pub(crate) const NEWEST_AND_SINCE: &str = "select version, null as event_name, schema, state from snapshots \
     where aggregate_id = $1 and aggregate = $2 union all \
     (select version, event_name, schema, payload from events where aggregate_id = $1 and aggregate = $2 \
     and version >= (select version from snapshots where aggregate_id = $1 and aggregate = $2) order by version limit $3)";

pub(crate) const SAVE: &str = "insert into snapshots (aggregate_id, aggregate, version, schema, state) \
     select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[]) \
     on conflict (aggregate_id, aggregate) do update \
     set version = excluded.version, schema = excluded.schema, state = excluded.state \
     where snapshots.version <= excluded.version";

pub(crate) const DISCARD: &str = "delete from snapshots where aggregate_id = $1 and aggregate = $2";

/// A row of what is read at once.
type Part = (i64, Option<String>, i64, Vec<u8>);

fn part(row: &PgRow) -> Result<Part, sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
}

fn snapshot(
    aggregate: &'static str,
    id: Uuid,
    version: i64,
    schema: i64,
    state: Vec<u8>,
) -> Result<Option<Snapshot>, StoreError> {
    // A schema that no program can have written is of no use, and no error either.
    let Ok(schema) = u32::try_from(schema) else { return Ok(None) };
    let version = Version::new(count(version)?);
    Ok(Some(Snapshot { aggregate, id, version, schema, state: Bytes::from(state) }))
}

#[async_trait]
impl SnapshotStore for PgSnapshots {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        let row = sqlx::query(NEWEST).bind(id).bind(aggregate).fetch_optional(&self.pool).await;
        let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
        let columns =
            || -> Result<(i64, i64, Vec<u8>), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
        let (version, schema, state) = columns().map_err(|error| store_error(&error))?;
        snapshot(aggregate, id, version, schema, state)
    }

    async fn newest_and_since(
        &self,
        aggregate: &'static str,
        id: Uuid,
    ) -> Result<Option<(Snapshot, Since)>, StoreError> {
        let mut rows = sqlx::query(NEWEST_AND_SINCE).bind(id).bind(aggregate).bind(SHORT).fetch(&self.pool);
        let (mut kept, mut since, mut bytes) = (None, Since { all: true, ..Since::default() }, 0);
        while let Some(row) = rows.try_next().await.map_err(|error| store_error(&error))? {
            let (version, event_name, schema, payload) = part(&row).map_err(|error| store_error(&error))?;
            let Some(event_name) = event_name else {
                kept = snapshot(aggregate, id, version, schema, payload)?;
                continue;
            };
            if number(bytes as u64) >= BUDGET {
                // Whoever folds it reads on by itself.
                since.all = false;
                continue;
            }
            bytes += payload.len();
            let (version, schema) = (Version::new(count(version)?), SchemaId::new(schema.cast_unsigned()));
            since.events.push(SinceEvent { version, event_name, schema, payload: Bytes::from(payload) });
        }
        since.all &= number(since.events.len() as u64) < SHORT;
        // They come in order; nothing promises it.
        since.events.sort_unstable_by_key(|event| event.version);
        Ok(kept.map(|snapshot| (snapshot, since)))
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let aggregates: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.aggregate).collect();
        let versions: Vec<i64> = snapshots.iter().map(|snapshot| number(snapshot.version.get())).collect();
        let schemas: Vec<i64> = snapshots.iter().map(|snapshot| i64::from(snapshot.schema)).collect();
        let states: Vec<&[u8]> = snapshots.iter().map(|snapshot| &*snapshot.state).collect();
        let query = sqlx::query(SAVE).bind(ids).bind(aggregates).bind(versions).bind(schemas).bind(states);
        query.execute(&self.pool).await.map_err(|error| store_error(&error))?;
        Ok(())
    }

    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError> {
        let deleted = sqlx::query(DISCARD).bind(id).bind(aggregate).execute(&self.pool).await;
        deleted.map_err(|error| store_error(&error))?;
        Ok(())
    }
}
