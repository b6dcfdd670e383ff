//! Appending a batch in a transaction of its own, with the cheapest statement that is correct for it.
//!
//! For commands with one event each and no idempotency record, `epoch_append` is not needed: the unique key of
//! `events` alone detects conflicts, and one plain insert writes the batch. The insert takes the store's advisory lock
//! first, so that positions are drawn in commit order. It leaves out an event if its predecessor is missing or its
//! version is taken. The statement's snapshot may be older than the lock, but the predecessor was committed before the
//! command was decided.

use std::collections::HashMap;

use epoch::{
    Timestamp,
    store::{Append, StoreError},
};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    database::{
        error::store_error,
        rows::{bigint, schema_bigint, unsigned},
    },
    store::{
        append::{AppendResult, append_batch, committed_envelopes, has_distinct_targets},
        append_columns::{AppendColumns, metadata_json},
    },
};

const INSERT_EVENT: &str = include_str!("sql/insert_event.sql");
const INSERT_EVENTS: &str = include_str!("sql/insert_events.sql");

/// Appends a batch. The caller has no open transaction.
pub(crate) async fn append_autocommit(
    connection: &mut PgConnection,
    batch: &[Append],
) -> Result<Vec<AppendResult>, StoreError> {
    let is_single_event = |append: &Append| append.events.len() == 1 && append.context.idempotency.is_none();
    if !batch.iter().all(is_single_event) || !has_distinct_targets(batch) {
        return append_batch(connection, batch).await;
    }
    let inserted = match batch {
        [append] => insert_one(connection, append).await?,
        _ => insert_many(connection, batch).await?,
    };
    let mut outcomes = Vec::with_capacity(batch.len());
    for append in batch {
        let Some(row) = append.events.first().and_then(|event| inserted.get(&event.event_id)) else {
            // A conflict. `epoch_append` reports the current version, or appends if the conflict is gone.
            outcomes.extend(append_batch(connection, std::slice::from_ref(append)).await?);
            continue;
        };
        let (position, recorded_at) = (unsigned(row.position)?, Timestamp::from_millis(row.recorded_at));
        outcomes.push(AppendResult::Committed(committed_envelopes(append, position, recorded_at)));
    }
    Ok(outcomes)
}

#[derive(FromRow)]
struct InsertedEvent {
    event_id: Uuid,
    position: i64,
    recorded_at: i64,
}

fn by_event_id(rows: Result<Vec<InsertedEvent>, sqlx::Error>) -> Result<HashMap<Uuid, InsertedEvent>, StoreError> {
    let rows = rows.map_err(|error| store_error(&error))?;
    Ok(rows.into_iter().map(|row| (row.event_id, row)).collect())
}

async fn insert_one(
    connection: &mut PgConnection,
    append: &Append,
) -> Result<HashMap<Uuid, InsertedEvent>, StoreError> {
    let mut query = sqlx::query_as(INSERT_EVENT)
        .bind(append.aggregate)
        .bind(append.aggregate_id)
        .bind(bigint(append.expected.get()))
        .bind(append.previous);
    for event in &append.events {
        query = query
            .bind(event.event_id)
            .bind(event.name)
            .bind(schema_bigint(event.encoded.schema))
            .bind(event.encoded.payload.as_ref());
    }
    let query = query.bind(metadata_json(&append.context)?).bind(append.context.occurred_at.as_millis());
    by_event_id(query.fetch_all(connection).await)
}

async fn insert_many(
    connection: &mut PgConnection,
    batch: &[Append],
) -> Result<HashMap<Uuid, InsertedEvent>, StoreError> {
    let columns = AppendColumns::of(batch)?;
    let rows = sqlx::query_as(INSERT_EVENTS)
        .bind(columns.aggregates)
        .bind(columns.ids)
        .bind(columns.expected_versions)
        .bind(columns.previous)
        .bind(columns.event_ids)
        .bind(columns.event_names)
        .bind(columns.schemas)
        .bind(columns.payloads)
        .bind(columns.metadata)
        .bind(columns.occurred_at)
        .fetch_all(connection)
        .await;
    by_event_id(rows)
}
