//! The queues of parked aggregates, as rows of `dead_letters`.

use std::sync::Arc;

use epoch::{Batch, Envelope, Timestamp, Version, envelope::StreamKey};
use sqlx::{PgConnection, Postgres, postgres::PgArguments};

use crate::{
    database::rows::{bigint, envelopes, schema_bigint},
    delivery::error::HandlerError,
};

const ENQUEUE: &str = include_str!("sql/enqueue_dead_letters.sql");
const QUEUED: &str = include_str!("sql/queued_events.sql");
const DELETE_APPLIED: &str = include_str!("sql/delete_applied_dead_letters.sql");
const RECORD_FAILURE: &str = include_str!("sql/record_dead_letter_failure.sql");
const SKIP: &str = include_str!("sql/skip_dead_letter.sql");

/// Adds events to their aggregates' queues, in one statement. `error` is the handler's error, if it failed on them.
pub(crate) async fn enqueue(
    connection: &mut PgConnection,
    key: &str,
    events: &Batch,
    error: Option<&str>,
) -> Result<(), HandlerError> {
    if events.is_empty() {
        return Ok(());
    }
    let metadata = events.iter().map(|event| serde_json::to_string(&event.metadata)).collect::<Result<Vec<_>, _>>();
    let query = sqlx::query(ENQUEUE).bind(key).bind(error).bind(i32::from(error.is_some()));
    query
        .bind(Timestamp::now().as_millis())
        .bind(column(events, |event| event.aggregate_id))
        .bind(column(events, |event| event.aggregate.as_ref()))
        .bind(column(events, |event| bigint(event.version.get())))
        .bind(column(events, |event| bigint(event.position.get())))
        .bind(column(events, |event| event.event_id))
        .bind(column(events, |event| event.event_name.as_ref()))
        .bind(column(events, |event| schema_bigint(event.schema)))
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

/// Returns the first queued events after a version, in version order.
pub(crate) async fn queued(
    connection: &mut PgConnection,
    key: &str,
    stream: &StreamKey,
    after: Version,
    limit: i64,
) -> Result<Vec<Arc<Envelope>>, HandlerError> {
    let rows = bind_letter(QUEUED, key, stream, after).bind(limit).fetch_all(connection).await?;
    Ok(envelopes(&rows)?.into_iter().map(Arc::new).collect())
}

/// Deletes the queued events up to and including a version.
pub(crate) async fn delete_applied(
    connection: &mut PgConnection,
    key: &str,
    stream: &StreamKey,
    up_to: Version,
) -> Result<(), HandlerError> {
    bind_letter(DELETE_APPLIED, key, stream, up_to).execute(connection).await?;
    Ok(())
}

/// Stores the handler's error with a queued event and counts the attempt.
pub(crate) async fn record_failure(
    connection: &mut PgConnection,
    key: &str,
    stream: &StreamKey,
    version: Version,
    error: &HandlerError,
) -> Result<(), HandlerError> {
    bind_letter(RECORD_FAILURE, key, stream, version).bind(error.to_string()).execute(connection).await?;
    Ok(())
}

/// Marks a queued event as skipped now. Its row stays as a record.
pub(crate) async fn mark_skipped(
    connection: &mut PgConnection,
    key: &str,
    stream: &StreamKey,
    version: Version,
) -> Result<(), HandlerError> {
    bind_letter(SKIP, key, stream, version).bind(Timestamp::now().as_millis()).execute(connection).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn bind_letter<'q>(query: &'static str, key: &'q str, stream: &'q StreamKey, version: Version) -> Query<'q> {
    sqlx::query(query).bind(key).bind(stream.id).bind(stream.aggregate.as_ref()).bind(bigint(version.get()))
}
