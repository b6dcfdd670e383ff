//! Changes of the size of each file.
//!
//! Storage is charged by byte and millisecond, including uploads in progress and uploads that are aborted
//! later. Invariant: each event that stores or frees bytes is one row at the instant it occurred, so the
//! level of a file at an instant is the sum of its rows up to that instant. The same transaction writes the
//! sums of files and the rollups of organizations. A file with many changes has a rollup of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, Envelope, Timestamp};
use epoch_postgres::{HandlerError, PgTx, Projection};
use futures::TryStreamExt;
use rating::{calendar::span::Span, metering::level::LevelChange};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::read_error::{ReadError, check_limit};

/// The name of the subscription, which is stored with its cursors.
pub const NAME: &str = "storage-changes";

/// Projection into the tables `storage_changes`, `metering_files`, `metering_file_sums` and
/// `metering_storage_sums`.
pub struct StorageChanges;

#[derive(Default)]
struct Rows {
    organizations: Vec<Uuid>,
    files: Vec<Uuid>,
    instants: Vec<i64>,
    deltas: Vec<i64>,
    recorded: Vec<i64>,
    events: Vec<Uuid>,
}

#[async_trait]
impl Projection for StorageChanges {
    const NAME: &'static str = NAME;
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] =
        &["storage_changes", "metering_files", "metering_file_sums", "metering_storage_sums"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut rows = Rows::default();
        for event in events {
            let Some((organization, delta)) = change(event)? else { continue };
            rows.organizations.push(organization);
            rows.files.push(event.aggregate_id);
            rows.instants.push(event.occurred_at.as_millis());
            rows.deltas.push(delta);
            rows.recorded.push(event.recorded_at.as_millis());
            rows.events.push(event.event_id);
        }
        if rows.files.is_empty() {
            return Ok(());
        }
        sqlx::query("select metering_storage_add($1, $2, $3, $4, $5, $6)")
            .bind(rows.organizations)
            .bind(rows.files)
            .bind(rows.instants)
            .bind(rows.deltas)
            .bind(rows.recorded)
            .bind(rows.events)
            .execute(tx.connection())
            .await?;
        Ok(())
    }
}

/// Returns the organization and the size change in bytes of an event, or `None` for an event without one.
///
/// # Errors
/// [`HandlerError`] when the event cannot be decoded or has a negative size.
pub(crate) fn change(event: &Envelope) -> Result<Option<(Uuid, i64)>, HandlerError> {
    let (organization, delta) = match event.decode::<FileEvent>()? {
        FileEvent::FilePartUploaded(part) => (part.organization_id, size(part.bytes)?),
        FileEvent::FileUploadAborted(aborted) => (aborted.organization_id, -size(aborted.bytes)?),
        FileEvent::FileDeleted(deleted) => (deleted.organization_id, -size(deleted.bytes)?),
        FileEvent::FileUploadStarted(_) | FileEvent::FileUploadCompleted(_) => return Ok(None),
    };
    Ok((delta != 0).then_some((organization, delta)))
}

fn size(bytes: i64) -> Result<i64, HandlerError> {
    if bytes < 0 {
        return Err(HandlerError::refused(format!("size of {bytes} bytes is negative")));
    }
    Ok(bytes)
}

/// Size changes by file.
pub type Changes = BTreeMap<Uuid, Vec<LevelChange>>;

const RECORDED_AFTER: &str = "select file_id, at, delta_bytes from storage_changes \
     where organization_id = $1 and recorded_at > $2 and at <= $3 limit $4";

/// Returns the changes of an organization's files up to and including `last` that were recorded after
/// `known_at`.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn recorded_after(
    connection: &mut PgConnection,
    organization: Uuid,
    known_at: Timestamp,
    last: Timestamp,
    limit: i64,
) -> Result<Changes, ReadError> {
    let query = sqlx::query(RECORDED_AFTER).bind(organization).bind(known_at.as_millis()).bind(last.as_millis());
    collect(query, connection, limit).await
}

const WITHIN: &str = "select file_id, at, delta_bytes from storage_changes \
     where organization_id = $1 and at >= $2 and at < $3 limit $4";

/// Returns the changes of an organization's files in a span.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn within(
    connection: &mut PgConnection,
    organization: Uuid,
    span: Span,
    limit: i64,
) -> Result<Changes, ReadError> {
    let (start, end) = (span.start().as_millis(), span.end().as_millis());
    collect(sqlx::query(WITHIN).bind(organization).bind(start).bind(end), connection, limit).await
}

async fn collect(
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Changes, ReadError> {
    let mut rows = query.bind(limit.saturating_add(1)).fetch(connection);
    let (mut files, mut count) = (Changes::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let at = Timestamp::from_millis(row.try_get("at")?);
        let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
        files.entry(row.try_get("file_id")?).or_default().push(change);
        count += 1;
    }
    check_limit(count, limit, "changes of files")?;
    Ok(files)
}
