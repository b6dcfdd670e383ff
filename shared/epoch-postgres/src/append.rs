//! Appending a batch of commands in one round trip.
//!
//! The problem: a commit costs a disk flush; a hundred commands a moment apart can share one.
//!
//! The invariant: however appends are put together, each is whole or not at all, and a loser doesn't harm the others. The
//! SQL function `epoch_append` checks versions and command ids under the store's lock and writes the winners only.

use std::{collections::HashSet, sync::Arc};

use epoch::{
    Envelope, Position, Timestamp, Version,
    context::Metadata,
    store::{Append, CommandRecord, StoreError},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::store_error,
    rows::{count, number, schema_number},
};

/// What became of one append of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    Committed(Vec<Arc<Envelope>>),
    Conflict(Version),
    Repeated(CommandRecord),
    Reused,
}

/// The batch, column by column, as `epoch_append` takes it.
#[derive(Default)]
struct Columns<'a> {
    aggregates: Vec<&'static str>,
    ids: Vec<Uuid>,
    expected: Vec<i64>,
    counts: Vec<i64>,
    command_ids: Vec<Uuid>,
    fingerprints: Vec<Option<&'a [u8]>>,
    metadata: Vec<String>,
    occurred: Vec<i64>,
    event_appends: Vec<i64>,
    event_numbers: Vec<i64>,
    event_ids: Vec<Uuid>,
    event_names: Vec<&'static str>,
    schemas: Vec<i64>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [Append]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (append, n) in batch.iter().zip(1..) {
            let context = &append.context;
            let metadata = serde_json::to_string(&Metadata::from(context))
                .map_err(|error| StoreError::Refused { detail: format!("metadata: {error}") })?;
            columns.aggregates.push(append.aggregate);
            columns.ids.push(append.aggregate_id);
            columns.expected.push(number(append.expected.get()));
            columns.counts.push(number(append.events.len() as u64));
            columns.command_ids.push(context.command_id);
            columns.fingerprints.push(context.idempotency.as_ref().map(|known| known.fingerprint.as_slice()));
            columns.metadata.push(metadata);
            columns.occurred.push(context.occurred_at.as_millis());
            for (event, event_number) in append.events.iter().zip(1..) {
                columns.event_appends.push(n);
                columns.event_numbers.push(event_number);
                columns.event_ids.push(event.event_id);
                columns.event_names.push(event.name);
                columns.schemas.push(schema_number(event.encoded.schema));
                columns.payloads.push(&event.encoded.payload);
            }
        }
        Ok(columns)
    }
}

/// Appends a batch in order. Inside a transaction the store's lock is held until it ends, so this comes
/// last.
pub(crate) async fn append_batch(connection: &mut PgConnection, batch: &[Append]) -> Result<Vec<Outcome>, StoreError> {
    let columns = Columns::of(batch)?;
    let rows = sqlx::query("select * from epoch_append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)")
        .bind(all_different(batch))
        .bind(columns.aggregates)
        .bind(columns.ids)
        .bind(columns.expected)
        .bind(columns.counts)
        .bind(columns.command_ids)
        .bind(columns.fingerprints)
        .bind(columns.metadata)
        .bind(columns.occurred)
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
        let detail = format!("{} answers to {} appends", rows.len(), batch.len());
        return Err(StoreError::Refused { detail });
    }
    batch.iter().zip(&rows).map(|(append, row)| outcome(append, row)).collect()
}

/// Whether no two appends are of the same aggregate or the same command.
fn all_different(batch: &[Append]) -> bool {
    let streams: HashSet<_> = batch.iter().map(|append| (append.aggregate, append.aggregate_id)).collect();
    let commands: HashSet<_> = batch.iter().map(|append| append.context.command_id).collect();
    streams.len() == batch.len() && commands.len() == batch.len()
}

fn outcome(append: &Append, row: &PgRow) -> Result<Outcome, StoreError> {
    let read = || -> Result<(i16, Uuid, i64, Option<i64>, i64), sqlx::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
    };
    let (kind, aggregate_id, version, first, recorded_at) = read().map_err(|error| store_error(&error))?;
    let version = Version::new(count(version)?);
    match kind {
        0 => Ok(Outcome::Committed(envelopes(append, count(first.unwrap_or(0))?, Timestamp::from_millis(recorded_at)))),
        1 => Ok(Outcome::Conflict(version)),
        2 => Ok(Outcome::Repeated(CommandRecord { aggregate_id, version })),
        3 => Ok(Outcome::Reused),
        other => Err(StoreError::Refused { detail: format!("unknown outcome {other} of an append") }),
    }
}

/// Positions of one append follow each other: they were drawn in one statement under the store's lock.
fn envelopes(append: &Append, first: u64, recorded_at: Timestamp) -> Vec<Arc<Envelope>> {
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
