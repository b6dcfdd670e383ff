//! The projection `files`: one row per file.
//!
//! A row is the fold of its file's events. `bytes` is the presently stored size: uploaded parts minus discarded bytes.
//! A batch is folded in memory and written with two statements, whatever its number of events.

use std::collections::HashMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent, FileUploadStarted};
use epoch::{Batch, Envelope};
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::queries::files::FileStatus;

const INSERT: &str = include_str!("insert_files.sql");
const UPDATE: &str = include_str!("update_files.sql");

/// Maintains the table `files`.
pub(crate) struct FilesProjection;

#[async_trait]
impl Projection for FilesProjection {
    const NAME: &'static str = "files";
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["files"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut started = Vec::new();
        let mut changes: HashMap<Uuid, FileChange> = HashMap::new();
        for event in events {
            let change = changes.entry(event.aggregate_id).or_default();
            change.version = version_number(event.version);
            match event.decode()? {
                FileEvent::FileUploadStarted(file) => started.push((event.as_ref(), file)),
                FileEvent::FilePartUploaded(part) => change.bytes += part.bytes,
                FileEvent::FileUploadCompleted(_) => {
                    change.status = Some(FileStatus::Completed);
                    change.completed_at = Some(event.occurred_at.as_millis());
                }
                FileEvent::FileUploadAborted(aborted) => {
                    change.bytes -= aborted.bytes;
                    change.status = Some(FileStatus::Aborted);
                }
                FileEvent::FileDeleted(deleted) => {
                    change.bytes -= deleted.bytes;
                    change.status = Some(FileStatus::Deleted);
                }
            }
        }
        insert(tx.connection(), &started).await?;
        update(tx.connection(), &changes).await?;
        Ok(())
    }
}

/// Changes of one row. `None` keeps the present value.
#[derive(Default)]
struct FileChange {
    /// Difference of the stored bytes.
    bytes: i64,
    status: Option<FileStatus>,
    /// UTC milliseconds.
    completed_at: Option<i64>,
    version: i64,
}

async fn insert(connection: &mut PgConnection, started: &[(&Envelope, FileUploadStarted)]) -> Result<(), sqlx::Error> {
    if started.is_empty() {
        return Ok(());
    }
    let (mut ids, mut organizations, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut jobs, mut created) = (Vec::new(), Vec::new());
    for (event, file) in started {
        ids.push(event.aggregate_id);
        organizations.push(file.organization_id);
        names.push(file.name.as_str());
        types.push(file.content_type.as_str());
        jobs.push(file.produced_by_job);
        created.push(event.occurred_at.as_millis());
    }
    sqlx::query(INSERT)
        .bind(ids)
        .bind(organizations)
        .bind(names)
        .bind(types)
        .bind(jobs)
        .bind(created)
        .execute(connection)
        .await?;
    Ok(())
}

async fn update(connection: &mut PgConnection, changes: &HashMap<Uuid, FileChange>) -> Result<(), sqlx::Error> {
    let (mut ids, mut bytes, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut completed, mut versions) = (Vec::new(), Vec::new());
    for (id, change) in changes {
        ids.push(*id);
        bytes.push(change.bytes);
        statuses.push(change.status.map(FileStatus::as_str));
        completed.push(change.completed_at);
        versions.push(change.version);
    }
    sqlx::query(UPDATE).bind(ids).bind(bytes).bind(statuses).bind(completed).bind(versions).execute(connection).await?;
    Ok(())
}
