//! How much each file holds, change by change.
//!
//! The problem: storage is paid for by the byte and the millisecond, also while a file is still being uploaded, and also for
//! an upload that was given up.
//!
//! The invariant: each event that stores or frees bytes is one row, at the instant it happened, so a file's level at any
//! instant is the sum of its rows up to there. The sums of files and of the organization are written with it; a file that changes
//! often has sums by time, too.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, Envelope, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use futures::TryStreamExt;
use rating::{calendar::span::Span, metering::level::LevelChange};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::read_error::{ReadError, bounded};

/// The subscription's name.
pub const NAME: &str = "storage-changes";

/// Fills the tables `storage_changes`, `metering_files`, `metering_file_sums` and `metering_storage_sums`.
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
impl EventHandler<PgTx> for StorageChanges {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["storage_changes", "metering_files", "metering_file_sums", "metering_storage_sums"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
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

/// Whose file holds how much more, or if negative less, since an event; `None` when nothing changes.
///
/// # Errors
/// [`HandlerError`] when the event can't be read, or says what makes no sense.
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
        return Err(HandlerError::refused(format!("a size of {bytes} bytes makes no sense")));
    }
    Ok(bytes)
}

/// Changes by file.
pub type Changes = BTreeMap<Uuid, Vec<LevelChange>>;

const RECORDED_AFTER: &str = "select file_id, at, delta_bytes from storage_changes \
     where organization_id = $1 and recorded_at > $2 and at <= $3 limit $4";

/// The changes of an organization's files up to and with `last` that were not known yet at `known_at`.
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

/// The changes of an organization's files in a span.
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
    let (mut files, mut found) = (Changes::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let at = Timestamp::from_millis(row.try_get("at")?);
        let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
        files.entry(row.try_get("file_id")?).or_default().push(change);
        found += 1;
    }
    bounded(found, limit, "changes of files")?;
    Ok(files)
}
