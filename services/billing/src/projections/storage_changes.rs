//! How much each file holds, change by change.
//!
//! The problem: storage is paid for by the byte and the millisecond, also while a file is still being uploaded, and also for
//! an upload that was given up.
//!
//! The invariant: each event that stores or frees bytes is one row, at the instant it happened, so a file's level at any
//! instant is the sum of its rows up to there.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use futures::TryStreamExt;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::domain::{metering::LevelChange, span::Window};

/// The subscription's name.
pub const NAME: &str = "storage-changes";

/// Fills the table `storage_changes`.
pub struct StorageChanges;

#[derive(Default)]
struct Rows {
    organizations: Vec<Uuid>,
    files: Vec<Uuid>,
    instants: Vec<i64>,
    deltas: Vec<i64>,
    recorded: Vec<i64>,
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

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut rows = Rows::default();
        for event in events {
            let (organization, delta) = match event.decode::<FileEvent>()? {
                FileEvent::FilePartUploaded(part) => (part.organization_id, size(part.bytes)?),
                FileEvent::FileUploadAborted(aborted) => (aborted.organization_id, -size(aborted.bytes)?),
                FileEvent::FileDeleted(deleted) => (deleted.organization_id, -size(deleted.bytes)?),
                FileEvent::FileUploadStarted(_) | FileEvent::FileUploadCompleted(_) => continue,
            };
            if delta == 0 {
                continue;
            }
            rows.organizations.push(organization);
            rows.files.push(event.aggregate_id);
            rows.instants.push(event.occurred_at.as_millis());
            rows.deltas.push(delta);
            rows.recorded.push(event.recorded_at.as_millis());
        }
        if rows.files.is_empty() {
            return Ok(());
        }
        let insert = "insert into storage_changes (organization_id, file_id, at, delta_bytes, recorded_at) \
             select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])";
        sqlx::query(insert)
            .bind(rows.organizations)
            .bind(rows.files)
            .bind(rows.instants)
            .bind(rows.deltas)
            .bind(rows.recorded)
            .execute(tx.connection())
            .await?;
        Ok(())
    }
}

fn size(bytes: i64) -> Result<i64, HandlerError> {
    if bytes < 0 {
        return Err(HandlerError::refused(format!("a size of {bytes} bytes makes no sense")));
    }
    Ok(bytes)
}

/// What a file held before, as one change at the beginning, and each change since, up to and with `$3`.
const CHANGES: &str = "select file_id, $2::bigint as at, sum(delta_bytes)::bigint as delta_bytes from storage_changes \
     where organization_id = $1 and at < $2 group by file_id having sum(delta_bytes) <> 0 \
     union all \
     select file_id, at, delta_bytes from storage_changes \
     where organization_id = $1 and at >= $2 and at <= $3";

/// The changes of an organization's files that a window's usage needs; what was long ago comes summed up.
///
/// # Errors
/// When the database gives no answer.
pub async fn changes(
    pool: &PgPool,
    organization: Uuid,
    window: Window,
) -> Result<BTreeMap<Uuid, Vec<LevelChange>>, sqlx::Error> {
    let (first, last) = window.needed();
    let mut rows = sqlx::query(CHANGES).bind(organization).bind(first.as_millis()).bind(last.as_millis()).fetch(pool);
    let mut files: BTreeMap<Uuid, Vec<LevelChange>> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let at = Timestamp::from_millis(row.try_get("at")?);
        let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
        files.entry(row.try_get("file_id")?).or_default().push(change);
    }
    Ok(files)
}
