//! Appending a batch of commands in one round trip.
//!
//! The problem: a commit costs a disk flush; a hundred commands a moment apart can share one.
//!
//! The invariant: however appends are put together, each is whole or not at all, and a loser doesn't harm the others. The
//! SQL function `epoch_append` checks versions and command ids under the store's lock and writes the winners only. Appends of
//! one event each need less: there the unique key alone decides who wins, and one plain insert does it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use epoch::{
    CommandContext, Envelope, Position, Timestamp, Version,
    context::Metadata,
    store::{Append, CommandRecord, StoreError},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::{count, number, schema_number},
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
    previous: Vec<Option<Uuid>>,
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
            columns.aggregates.push(append.aggregate);
            columns.ids.push(append.aggregate_id);
            columns.expected.push(number(append.expected.get()));
            columns.previous.push(append.previous);
            columns.counts.push(number(append.events.len() as u64));
            columns.command_ids.push(context.command_id);
            columns.fingerprints.push(context.idempotency.as_ref().map(|known| known.fingerprint.as_slice()));
            columns.metadata.push(metadata(context)?);
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

fn metadata(context: &CommandContext) -> Result<String, StoreError> {
    serde_json::to_string(&Metadata::from(context))
        .map_err(|error| StoreError::Refused { detail: format!("metadata: {error}") })
}

/// Appends a batch in order. Inside a transaction the store's lock is held until it ends, so this comes
/// last.
pub(crate) async fn append_batch(connection: &mut PgConnection, batch: &[Append]) -> Result<Vec<Outcome>, StoreError> {
    let columns = Columns::of(batch)?;
    let rows = sqlx::query("select * from epoch_append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16)")
        .bind(all_different(batch))
        .bind(columns.aggregates)
        .bind(columns.ids)
        .bind(columns.expected)
        .bind(columns.previous)
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

/// The lock comes first, so that positions are drawn in commit order. An event whose predecessor isn't there, or whose place is
/// taken, isn't written; the statement's own view of the log may be older than the lock, but the predecessor was committed before the
/// command was decided.
macro_rules! simple {
    ($values:literal, $from:literal, $expected:literal, $previous:literal, $id:literal, $aggregate:literal) => {
        concat!(
            "with locked as materialized (select \
             pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint), \
             floor(extract(epoch from clock_timestamp()) * 1000)::bigint as recorded_at) \
             insert into events (aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
             occurred_at, recorded_at) select ",
            $values,
            ", locked.recorded_at from locked",
            $from,
            " where ",
            $expected,
            " = 0 or (select true from events p where p.aggregate_id = ",
            $id,
            " and p.aggregate = ",
            $aggregate,
            " and p.version = ",
            $expected,
            " and (",
            $previous,
            " is null or p.event_id = ",
            $previous,
            ")) on conflict do nothing returning event_id, position, recorded_at"
        )
    };
}

const ONE: &str = simple!("$1, $2, $3 + 1, $5, $6, $7, $8, $9::json, $10", "", "$3::bigint", "$4::uuid", "$2", "$1");

const MANY: &str = simple!(
    "a.aggregate, a.id, a.expected + 1, a.event_id, a.name, a.schema, a.payload, a.metadata::json, a.occurred_at",
    ", unnest($1::text[], $2::uuid[], $3::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::bytea[], $9::text[], \
     $10::bigint[]) as a (aggregate, id, expected, previous, event_id, name, schema, payload, metadata, occurred_at)",
    "a.expected",
    "a.previous",
    "a.id",
    "a.aggregate"
);

/// Appends a batch in a transaction of its own, in the cheapest way that is right for it.
pub(crate) async fn append_alone(connection: &mut PgConnection, batch: &[Append]) -> Result<Vec<Outcome>, StoreError> {
    let simple = |append: &Append| append.events.len() == 1 && append.context.idempotency.is_none();
    if !batch.iter().all(simple) || !all_different(batch) {
        return append_batch(connection, batch).await;
    }
    let written = match batch {
        [append] => insert_one(connection, append).await?,
        _ => insert_many(connection, batch).await?,
    };
    let mut outcomes = Vec::with_capacity(batch.len());
    for append in batch {
        let Some((position, recorded_at)) = append.events.first().and_then(|event| written.get(&event.event_id)) else {
            // It lost; who was faster is known where versions are judged.
            outcomes.extend(append_batch(connection, std::slice::from_ref(append)).await?);
            continue;
        };
        outcomes.push(Outcome::Committed(envelopes(append, count(*position)?, Timestamp::from_millis(*recorded_at))));
    }
    Ok(outcomes)
}

/// Position and recording time of the events that were written.
type Written = HashMap<Uuid, (i64, i64)>;

fn written(rows: &[PgRow]) -> Result<Written, sqlx::Error> {
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

async fn insert_one(connection: &mut PgConnection, append: &Append) -> Result<Written, StoreError> {
    let mut query = sqlx::query(ONE)
        .bind(append.aggregate)
        .bind(append.aggregate_id)
        .bind(number(append.expected.get()))
        .bind(append.previous);
    for event in &append.events {
        query = query
            .bind(event.event_id)
            .bind(event.name)
            .bind(schema_number(event.encoded.schema))
            .bind(event.encoded.payload.as_ref());
    }
    let query = query.bind(metadata(&append.context)?).bind(append.context.occurred_at.as_millis());
    let rows = query.fetch_all(connection).await;
    rows.and_then(|rows| written(&rows)).map_err(|error| store_error(&error))
}

async fn insert_many(connection: &mut PgConnection, batch: &[Append]) -> Result<Written, StoreError> {
    let columns = Columns::of(batch)?;
    let rows = sqlx::query(MANY)
        .bind(columns.aggregates)
        .bind(columns.ids)
        .bind(columns.expected)
        .bind(columns.previous)
        .bind(columns.event_ids)
        .bind(columns.event_names)
        .bind(columns.schemas)
        .bind(columns.payloads)
        .bind(columns.metadata)
        .bind(columns.occurred)
        .fetch_all(connection)
        .await;
    rows.and_then(|rows| written(&rows)).map_err(|error| store_error(&error))
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
