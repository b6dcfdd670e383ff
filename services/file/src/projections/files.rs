//! Files as they are shown: one row a file.
//!
//! The problem: lists by organization and status can't be read from streams.
//!
//! The invariant: a row is the fold of its file's events; `bytes` is what is stored now, the sum of what each event added
//! or took away. A batch is folded in memory first and written with two statements, however many events it has.

use std::collections::HashMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent, FileUploadStarted};
use epoch::{Batch, Envelope, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

/// The subscription's name.
pub(crate) const SUBSCRIPTION: &str = "files";

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum FileStatus {
    /// Some of it is still to come.
    Uploading,
    /// All of it is stored.
    Completed,
    /// Its upload was given up.
    Aborted,
    /// It was deleted.
    Deleted,
}

impl FileStatus {
    const fn as_str(self) -> &'static str {
        match self {
            FileStatus::Uploading => "uploading",
            FileStatus::Completed => "completed",
            FileStatus::Aborted => "aborted",
            FileStatus::Deleted => "deleted",
        }
    }
}

/// A row.
#[derive(Debug, FromRow)]
pub(crate) struct FileRow {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) bytes: i64,
    pub(crate) status: FileStatus,
    pub(crate) produced_by_job: Option<Uuid>,
    pub(crate) created_at: i64,
    pub(crate) completed_at: Option<i64>,
    pub(crate) version: i64,
}

/// One file of an organization.
pub(crate) async fn find(pool: &PgPool, organization: Uuid, id: Uuid) -> Result<Option<FileRow>, sqlx::Error> {
    sqlx::query_as("select * from files where id = $1 and organization_id = $2")
        .bind(id)
        .bind(organization)
        .fetch_optional(pool)
        .await
}

/// An organization's files of one status, newest first, beginning after `after`.
pub(crate) async fn list(
    pool: &PgPool,
    organization: Uuid,
    status: FileStatus,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<FileRow>, sqlx::Error> {
    let query = "select * from files where organization_id = $1 and status = $2 and id < $3 order by id desc limit $4";
    sqlx::query_as(query)
        .bind(organization)
        .bind(status.as_str())
        .bind(after.unwrap_or(Uuid::max()))
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// Keeps the rows.
pub(crate) struct FilesProjection;

#[async_trait]
impl EventHandler<PgTx> for FilesProjection {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        SUBSCRIPTION
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["files"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut started = Vec::new();
        let mut changes: HashMap<Uuid, Change> = HashMap::new();
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

/// What a batch changes in one row.
#[derive(Default)]
struct Change {
    bytes: i64,
    status: Option<FileStatus>,
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
    // The update that follows sets the version.
    let query = "insert into files \
         (id, organization_id, name, content_type, bytes, status, produced_by_job, created_at, version) \
         select id, organization_id, name, content_type, 0, 'uploading', produced_by_job, created_at, 0 \
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bigint[]) \
         as started (id, organization_id, name, content_type, produced_by_job, created_at)";
    sqlx::query(query)
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

async fn update(connection: &mut PgConnection, changes: &HashMap<Uuid, Change>) -> Result<(), sqlx::Error> {
    let (mut ids, mut bytes, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut completed, mut versions) = (Vec::new(), Vec::new());
    for (id, change) in changes {
        ids.push(*id);
        bytes.push(change.bytes);
        statuses.push(change.status.map(FileStatus::as_str));
        completed.push(change.completed_at);
        versions.push(change.version);
    }
    let query = "update files set bytes = files.bytes + change.bytes, \
         status = coalesce(change.status, files.status), \
         completed_at = coalesce(change.completed_at, files.completed_at), version = change.version \
         from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[]) \
         as change (id, bytes, status, completed_at, version) where files.id = change.id";
    sqlx::query(query).bind(ids).bind(bytes).bind(statuses).bind(completed).bind(versions).execute(connection).await?;
    Ok(())
}
