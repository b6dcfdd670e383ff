//! Snapshots in the table `snapshots`.
//!
//! Every query is one look-up by the primary key. Batches are written in key order, so that two processes wait for each
//! other without a deadlock.

use async_trait::async_trait;
use bytes::Bytes;
use epoch::{
    event::SchemaId,
    snapshot::{Snapshot, SnapshotStore, StreamTail, TailEvent},
    store::StoreError,
};
use futures::TryStreamExt;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::{
    database::{
        error::store_error,
        rows::{bigint, version},
    },
    store::loader::{MAX_BYTES, MAX_EVENTS},
};

/// Stores snapshots in the service's own schema.
#[derive(Debug, Clone)]
pub struct PgSnapshots {
    pool: PgPool,
}

impl PgSnapshots {
    /// Creates the snapshot store of the schema that is first in the search path of `pool`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

pub(crate) const NEWEST: &str =
    "select version, schema, state from snapshots where aggregate_id = $1 and aggregate = $2";
pub(crate) const NEWEST_AND_SINCE: &str = include_str!("sql/snapshot_and_events.sql");
pub(crate) const SAVE: &str = include_str!("sql/save_snapshots.sql");
pub(crate) const DISCARD: &str = "delete from snapshots where aggregate_id = $1 and aggregate = $2";

#[derive(FromRow)]
struct SnapshotRow {
    version: i64,
    schema: i64,
    state: Vec<u8>,
}

impl SnapshotRow {
    /// Returns `None` for a schema number that no program can have written; such a snapshot is ignored.
    fn snapshot(self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        let Ok(schema) = u32::try_from(self.schema) else { return Ok(None) };
        Ok(Some(Snapshot { aggregate, id, version: version(self.version)?, schema, state: Bytes::from(self.state) }))
    }
}

/// A snapshot when `event_name` is null, else an event after it.
#[derive(FromRow)]
struct SnapshotOrEventRow {
    version: i64,
    event_name: Option<String>,
    schema: i64,
    bytes: Vec<u8>,
}

#[async_trait]
impl SnapshotStore for PgSnapshots {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        let row = sqlx::query_as(NEWEST).bind(id).bind(aggregate).fetch_optional(&self.pool).await;
        let row: Option<SnapshotRow> = row.map_err(|error| store_error(&error))?;
        row.map_or(Ok(None), |row| row.snapshot(aggregate, id))
    }

    async fn newest_with_tail(
        &self,
        aggregate: &'static str,
        id: Uuid,
    ) -> Result<Option<(Snapshot, StreamTail)>, StoreError> {
        let query = sqlx::query_as::<_, SnapshotOrEventRow>(NEWEST_AND_SINCE).bind(id).bind(aggregate).bind(MAX_EVENTS);
        let mut rows = query.fetch(&self.pool);
        let (mut snapshot, mut since, mut bytes) = (None, StreamTail { complete: true, ..StreamTail::default() }, 0);
        while let Some(row) = rows.try_next().await.map_err(|error| store_error(&error))? {
            let Some(event_name) = row.event_name else {
                let row = SnapshotRow { version: row.version, schema: row.schema, state: row.bytes };
                snapshot = row.snapshot(aggregate, id)?;
                continue;
            };
            if bigint(bytes as u64) >= MAX_BYTES {
                // The fold reads the rest with a query of its own.
                since.complete = false;
                continue;
            }
            bytes += row.bytes.len();
            let (version, schema) = (version(row.version)?, SchemaId::new(row.schema.cast_unsigned()));
            since.events.push(TailEvent { version, event_name, schema, payload: Bytes::from(row.bytes) });
        }
        since.complete &= bigint(since.events.len() as u64) < MAX_EVENTS;
        // The rows arrive in order, but the query does not guarantee it.
        since.events.sort_unstable_by_key(|event| event.version);
        Ok(snapshot.map(|snapshot| (snapshot, since)))
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let aggregates: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.aggregate).collect();
        let versions: Vec<i64> = snapshots.iter().map(|snapshot| bigint(snapshot.version.get())).collect();
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
