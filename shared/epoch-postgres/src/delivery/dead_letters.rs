//! Parked aggregates and their queues.
//!
//! The problem: an event that a handler can't take must not stop everything else, and must not be lost or overtaken.
//!
//! The invariant: while an aggregate is parked its events wait in version order; `retry` and `skip` release them in that
//! order. A skipped event stays in the table with the time it was skipped at.

use std::{collections::BTreeSet, sync::Arc};

use epoch::{
    Batch, Envelope, Timestamp, Version,
    envelope::StreamKey,
    gate::{Cursor, Parked},
    store::StoreError,
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::{count, envelope, number, schema_number},
    delivery::cursors,
    delivery::generations::Generation,
    delivery::handler::HandlerError,
    delivery::subscription::PgSubscription,
};

const QUEUE: &str = "insert into dead_letters (subscription, aggregate_id, aggregate, version, position, event_id, \
     event_name, schema, payload, metadata, occurred_at, recorded_at, error, attempts, queued_at) \
     select $1, e.aggregate_id, e.aggregate, e.version, e.position, e.event_id, e.event_name, e.schema, e.payload, \
     e.metadata::json, e.occurred_at, e.recorded_at, $2, $3, $4 \
     from unnest($5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::uuid[], $10::text[], $11::bigint[], \
     $12::bytea[], $13::text[], $14::bigint[], $15::bigint[]) as e (aggregate_id, aggregate, version, position, event_id, \
     event_name, schema, payload, metadata, occurred_at, recorded_at) on conflict do nothing";

const NEXT: &str = "select position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
     occurred_at, recorded_at from dead_letters \
     where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version > $4 and skipped_at is null \
     order by version limit $5";

const DONE: &str = "delete from dead_letters \
     where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version <= $4 and skipped_at is null";

const FAILED: &str = "update dead_letters set error = $5, attempts = attempts + 1 \
     where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version = $4";

const SKIP: &str = "update dead_letters set skipped_at = $5 \
     where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version = $4";

const LIST: &str = "select d.aggregate, d.aggregate_id, d.version, d.event_name, d.error, d.attempts, d.queued_at, \
     c.parked, count(*) over (partition by d.aggregate_id, d.aggregate) as waiting \
     from cursors c join dead_letters d using (subscription, aggregate_id, aggregate) \
     where c.subscription = $1 and c.parked is not null and d.skipped_at is null and d.version > c.version \
     order by d.aggregate_id, d.aggregate, d.version limit $2";

/// How many waiting events are released in one transaction.
const PAGE: i64 = 100;

/// An event that waits because its aggregate is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The aggregate.
    pub stream: StreamKey,
    /// The event's version.
    pub version: Version,
    /// The event's name.
    pub event_name: String,
    /// Why the aggregate is parked.
    pub parked: Parked,
    /// What the handler said; `None` for events that only wait behind it.
    pub error: Option<String>,
    /// How often it was tried since it was parked.
    pub attempts: i32,
    /// When it was put here.
    pub queued_at: Timestamp,
    /// How many events of the aggregate wait, this one included.
    pub waiting: i64,
}

/// Puts events into their aggregates' queues, all in one statement.
pub(crate) async fn queue(
    connection: &mut PgConnection,
    key: &str,
    events: &Batch,
    error: Option<&str>,
) -> Result<(), HandlerError> {
    if events.is_empty() {
        return Ok(());
    }
    let metadata = events.iter().map(|event| serde_json::to_string(&event.metadata)).collect::<Result<Vec<_>, _>>();
    let query = sqlx::query(QUEUE).bind(key).bind(error).bind(i32::from(error.is_some()));
    query
        .bind(Timestamp::now().as_millis())
        .bind(column(events, |event| event.aggregate_id))
        .bind(column(events, |event| event.aggregate.as_ref()))
        .bind(column(events, |event| number(event.version.get())))
        .bind(column(events, |event| number(event.position.get())))
        .bind(column(events, |event| event.event_id))
        .bind(column(events, |event| event.event_name.as_ref()))
        .bind(column(events, |event| schema_number(event.schema)))
        .bind(column(events, |event| event.payload.as_ref()))
        .bind(metadata.map_err(HandlerError::refused)?)
        .bind(column(events, |event| event.occurred_at.as_millis()))
        .bind(column(events, |event| event.recorded_at.as_millis()))
        .execute(connection)
        .await?;
    Ok(())
}

fn column<'a, T>(events: &'a Batch, value: impl Fn(&'a Envelope) -> T) -> Vec<T> {
    events.iter().map(|event| value(event)).collect()
}

/// The events that wait, at most `limit`, by aggregate in version order.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn list(subscription: &PgSubscription, limit: i64) -> Result<Vec<DeadLetter>, StoreError> {
    let rows = sqlx::query(LIST)
        .bind(subscription.key().await.map_err(|error| store_error(&error))?)
        .bind(limit)
        .fetch_all(subscription.store.pool())
        .await
        .map_err(|error| store_error(&error))?;
    let mut letters = Vec::with_capacity(rows.len());
    for row in &rows {
        let read = || -> Result<_, sqlx::Error> {
            let aggregate: String = row.try_get("aggregate")?;
            let parked: String = row.try_get("parked")?;
            let version: i64 = row.try_get("version")?;
            let letter = DeadLetter {
                stream: StreamKey { aggregate: aggregate.into(), id: row.try_get::<Uuid, _>("aggregate_id")? },
                version: Version::ZERO,
                event_name: row.try_get("event_name")?,
                parked: if parked == "gap" { Parked::Gap } else { Parked::Failed },
                error: row.try_get("error")?,
                attempts: row.try_get("attempts")?,
                queued_at: Timestamp::from_millis(row.try_get("queued_at")?),
                waiting: row.try_get("waiting")?,
            };
            Ok((letter, version))
        };
        let (letter, version) = read().map_err(|error| store_error(&error))?;
        letters.push(DeadLetter { version: Version::new(count(version)?), ..letter });
    }
    Ok(letters)
}

/// Whether an aggregate is parked for a subscription.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn is_parked(subscription: &PgSubscription, stream: &StreamKey) -> Result<bool, StoreError> {
    let query = "select exists (select from cursors \
         where subscription = $1 and aggregate_id = $2 and aggregate = $3 and parked is not null)";
    let parked = async {
        let query = sqlx::query_scalar(query).bind(subscription.key().await?).bind(stream.id);
        query.bind(stream.aggregate.as_ref()).fetch_one(subscription.store.pool()).await
    };
    parked.await.map_err(|error| store_error(&error))
}

/// Tries a parked aggregate's waiting events again, in order; unparks it when all are applied. Gives how many were.
///
/// # Errors
/// What the handler said about the first event it still can't take; the aggregate stays parked there.
pub async fn retry(subscription: &PgSubscription, stream: &StreamKey) -> Result<usize, HandlerError> {
    release(subscription, stream).await
}

/// Gives up the first waiting event of a parked aggregate, then goes on with the others as [`retry`] does.
///
/// # Errors
/// As [`retry`]; the event stays skipped.
pub async fn skip(subscription: &PgSubscription, stream: &StreamKey) -> Result<usize, HandlerError> {
    let generation = &subscription.generation().await?;
    let name = &*generation.key;
    let mut tx = subscription.store.begin().await?;
    let cursor = lock_one(tx.connection(), generation, stream).await?;
    let Some(first) = waiting(tx.connection(), name, stream, cursor.version, 1).await?.pop() else {
        tx.rollback().await?;
        return Ok(0);
    };
    bind_letter(sqlx::query(SKIP), name, stream, first.version)
        .bind(Timestamp::now().as_millis())
        .execute(tx.connection())
        .await?;
    let moved = Cursor { version: first.version, parked: cursor.parked };
    cursors::advance(tx.connection(), generation, std::iter::once((stream, &moved))).await?;
    drop(tx.commit().await?);
    subscription.progress.moved();
    tracing::warn!(subscription = name, aggregate = %stream.aggregate, id = %stream.id, version = %first.version, "event skipped");
    release(subscription, stream).await
}

/// Applies waiting events as far as they follow the cursor.
pub(crate) async fn release(subscription: &PgSubscription, stream: &StreamKey) -> Result<usize, HandlerError> {
    let mut applied = 0;
    loop {
        match release_page(subscription, stream, PAGE).await {
            Ok((0, _)) => return Ok(applied),
            Ok((count, more)) => {
                applied += count;
                if !more {
                    return Ok(applied);
                }
            }
            // Somewhere in the page is the one that fails: go up to it, and note what it says.
            Err(error) if !error.is_transient() => loop {
                match release_page(subscription, stream, 1).await {
                    Ok((count, true)) if count > 0 => applied += count,
                    Ok((count, _)) => return Ok(applied + count),
                    Err(error) => {
                        note_failure(subscription, stream, &error).await?;
                        return Err(error);
                    }
                }
            },
            Err(error) => return Err(error),
        }
    }
}

/// One transaction; gives how many were applied, and whether more may follow.
async fn release_page(
    subscription: &PgSubscription,
    stream: &StreamKey,
    limit: i64,
) -> Result<(usize, bool), HandlerError> {
    let generation = &subscription.generation().await?;
    let name = &*generation.key;
    let mut tx = subscription.store.begin().await?;
    let cursor = lock_one(tx.connection(), generation, stream).await?;
    let queued = waiting(tx.connection(), name, stream, cursor.version, limit).await?;
    let mut version = cursor.version;
    let in_order: Vec<Arc<Envelope>> = queued
        .iter()
        .take_while(|event| {
            let follows = event.version == version.next();
            version = if follows { event.version } else { version };
            follows
        })
        .cloned()
        .collect();
    let full_page = i64::try_from(queued.len()).is_ok_and(|count| count == limit);
    let parked = match (queued.len() > in_order.len(), full_page) {
        (true, _) => Some(Parked::Gap),
        (false, true) => cursor.parked,
        (false, false) => None,
    };
    subscription.apply(&mut tx, &in_order).await?;
    bind_letter(sqlx::query(DONE), name, stream, version).execute(tx.connection()).await?;
    cursors::advance(tx.connection(), generation, std::iter::once((stream, &Cursor { version, parked }))).await?;
    drop(tx.commit().await?);
    subscription.progress.moved();
    Ok((in_order.len(), full_page && !in_order.is_empty()))
}

async fn note_failure(
    subscription: &PgSubscription,
    stream: &StreamKey,
    failure: &HandlerError,
) -> Result<(), HandlerError> {
    let generation = &subscription.generation().await?;
    let name = &*generation.key;
    let mut tx = subscription.store.begin().await?;
    let cursor = lock_one(tx.connection(), generation, stream).await?;
    bind_letter(sqlx::query(FAILED), name, stream, cursor.version.next())
        .bind(failure.to_string())
        .execute(tx.connection())
        .await?;
    let parked = Cursor { parked: Some(Parked::Failed), ..cursor };
    cursors::advance(tx.connection(), generation, std::iter::once((stream, &parked))).await?;
    drop(tx.commit().await?);
    Ok(())
}

async fn lock_one(
    connection: &mut PgConnection,
    generation: &Generation,
    stream: &StreamKey,
) -> Result<Cursor, HandlerError> {
    let streams = BTreeSet::from([(stream.id, stream.aggregate.to_string())]);
    Ok(cursors::lock(connection, generation, &streams).await?.get(stream).copied().unwrap_or_default())
}

async fn waiting(
    connection: &mut PgConnection,
    name: &str,
    stream: &StreamKey,
    after: Version,
    limit: i64,
) -> Result<Vec<Arc<Envelope>>, HandlerError> {
    let rows = bind_letter(sqlx::query(NEXT), name, stream, after).bind(limit).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Arc::new(envelope(row)?))).collect()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_letter<'q>(query: Query<'q>, name: &'q str, stream: &'q StreamKey, version: Version) -> Query<'q> {
    query.bind(name).bind(stream.id).bind(stream.aggregate.as_ref()).bind(number(version.get()))
}
