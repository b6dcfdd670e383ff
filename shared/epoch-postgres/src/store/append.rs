//! Appending a batch of commands in one round trip, by the SQL function `epoch_append`.
//!
//! A commit costs a disk flush, which many concurrent commands can share. Each append of a batch is written completely
//! or not at all, and a conflict does not affect the others: the function checks versions and command ids under the
//! store's advisory lock and writes only the appends without a conflict.

use std::{collections::HashSet, sync::Arc};

use epoch::{
    Envelope, Metadata, Position, Timestamp, Version,
    store::{Append, CommandRecord, StoreError},
};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    database::{
        error::store_error,
        rows::{unsigned, version},
    },
    store::append_columns::AppendColumns,
};

/// The outcome of one append of a batch.
#[derive(Debug)]
pub(crate) enum AppendResult {
    Committed(Vec<Arc<Envelope>>),
    /// The aggregate is at this version.
    Conflict(Version),
    Repeated(CommandRecord),
    /// The command id belongs to another command.
    Reused,
}

/// A row that `epoch_append` returns.
#[derive(FromRow)]
struct AppendRow {
    outcome: i16,
    aggregate_id: Uuid,
    version: i64,
    first_position: Option<i64>,
    recorded_at: i64,
}

/// Appends a batch in order.
///
/// The store's lock is held until the transaction ends, so this is the last step of a transaction.
pub(crate) async fn append_batch(
    connection: &mut PgConnection,
    batch: &[Append],
) -> Result<Vec<AppendResult>, StoreError> {
    let columns = AppendColumns::of(batch)?;
    let rows: Vec<AppendRow> = sqlx::query_as(include_str!("sql/append_batch.sql"))
        .bind(has_distinct_targets(batch))
        .bind(columns.aggregates)
        .bind(columns.ids)
        .bind(columns.expected_versions)
        .bind(columns.previous)
        .bind(columns.event_counts)
        .bind(columns.command_ids)
        .bind(columns.fingerprints)
        .bind(columns.metadata)
        .bind(columns.occurred_at)
        .bind(columns.event_appends)
        .bind(columns.event_numbers)
        .bind(columns.event_ids)
        .bind(columns.event_names)
        .bind(columns.schemas)
        .bind(columns.payloads)
        .fetch_all(connection)
        .await
        .map_err(|error| store_error(&error))?;
    if rows.len() != batch.len() {
        let detail = format!("epoch_append returned {} rows for {} appends", rows.len(), batch.len());
        return Err(StoreError::Refused { detail });
    }
    batch.iter().zip(rows).map(|(append, row)| outcome(append, &row)).collect()
}

/// Returns whether all appends have different aggregates and different command ids.
pub(crate) fn has_distinct_targets(batch: &[Append]) -> bool {
    let streams: HashSet<_> = batch.iter().map(|append| (append.aggregate, append.aggregate_id)).collect();
    let commands: HashSet<_> = batch.iter().map(|append| append.context.command_id).collect();
    streams.len() == batch.len() && commands.len() == batch.len()
}

fn outcome(append: &Append, row: &AppendRow) -> Result<AppendResult, StoreError> {
    let version = version(row.version)?;
    match row.outcome {
        0 => {
            let first = unsigned(row.first_position.unwrap_or(0))?;
            let recorded_at = Timestamp::from_millis(row.recorded_at);
            Ok(AppendResult::Committed(committed_envelopes(append, first, recorded_at)))
        }
        1 => Ok(AppendResult::Conflict(version)),
        2 => Ok(AppendResult::Repeated(CommandRecord { aggregate_id: row.aggregate_id, version })),
        3 => Ok(AppendResult::Reused),
        other => Err(StoreError::Refused { detail: format!("unknown append outcome {other}") }),
    }
}

/// Returns the envelopes of a committed append; its first event has the position `first`.
///
/// The positions are consecutive: one statement drew them under the store's lock.
pub(crate) fn committed_envelopes(append: &Append, first: u64, recorded_at: Timestamp) -> Vec<Arc<Envelope>> {
    let metadata = Metadata::from(&append.context);
    append
        .events
        .iter()
        .enumerate()
        .map(|(index, event)| {
            Arc::new(Envelope {
                event_id: event.event_id,
                aggregate: append.aggregate.into(),
                aggregate_id: append.aggregate_id,
                version: append.expected.after(index + 1),
                position: Position::new(first + index as u64),
                event_name: event.name.into(),
                schema: event.encoded.schema,
                payload: event.encoded.payload.clone(),
                occurred_at: append.context.occurred_at,
                recorded_at,
                metadata: metadata.clone(),
            })
        })
        .collect()
}
