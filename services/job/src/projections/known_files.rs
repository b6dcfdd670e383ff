//! Local copy of the file service's files.
//!
//! A job may use complete files of its own organization only. Asking the file service for each file would tie the
//! latency and availability of job creation to that service. This service follows the file events instead.

use std::collections::HashMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::Batch;
use epoch_postgres::{HandlerError, PgTx, Projection};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

const INSERT: &str = include_str!("sql/insert_known_files.sql");
const UPDATE: &str = include_str!("sql/update_known_files.sql");
const FIND_STATUSES: &str = include_str!("sql/find_known_file_statuses.sql");

/// Maintains the table `known_files`.
pub(crate) struct KnownFiles;

/// Status of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum FileStatus {
    /// The upload is in progress.
    Uploading,
    /// The file is complete.
    Completed,
    /// The upload was aborted; the file never became complete.
    Aborted,
    /// The file was deleted.
    Deleted,
}

impl FileStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Deleted => "deleted",
        }
    }
}

/// Columns of new rows.
#[derive(Default)]
struct NewFiles {
    ids: Vec<Uuid>,
    organization_ids: Vec<Uuid>,
    names: Vec<String>,
    bytes: Vec<i64>,
}

/// Last change of a file in a batch.
struct FileChange {
    status: FileStatus,
    /// Final size; `None` keeps the declared size.
    bytes: Option<i64>,
}

#[async_trait]
impl Projection for KnownFiles {
    const NAME: &'static str = "known_files";
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["known_files"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut new_files = NewFiles::default();
        let mut changes: HashMap<Uuid, FileChange> = HashMap::new();
        for event in events {
            let id = event.aggregate_id;
            match event.decode()? {
                FileEvent::FileUploadStarted(event) => {
                    new_files.ids.push(id);
                    new_files.organization_ids.push(event.organization_id);
                    new_files.names.push(event.name);
                    new_files.bytes.push(event.declared_bytes);
                }
                FileEvent::FilePartUploaded(_) => {}
                FileEvent::FileUploadCompleted(event) => {
                    changes.insert(id, FileChange { status: FileStatus::Completed, bytes: Some(event.bytes) });
                }
                FileEvent::FileUploadAborted(_) => {
                    changes.insert(id, FileChange { status: FileStatus::Aborted, bytes: None });
                }
                FileEvent::FileDeleted(event) => {
                    changes.insert(id, FileChange { status: FileStatus::Deleted, bytes: Some(event.bytes) });
                }
            }
        }
        // Inserts come first: a batch can both start and complete an upload.
        if !new_files.ids.is_empty() {
            let NewFiles { ids, organization_ids, names, bytes } = new_files;
            let query = sqlx::query(INSERT).bind(ids).bind(organization_ids).bind(names).bind(bytes);
            query.execute(tx.connection()).await?;
        }
        if !changes.is_empty() {
            let (mut ids, mut statuses, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
            for (id, FileChange { status, bytes }) in changes {
                ids.push(id);
                statuses.push(status.as_str());
                sizes.push(bytes);
            }
            sqlx::query(UPDATE).bind(ids).bind(statuses).bind(sizes).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

#[derive(FromRow)]
struct FileStatusRow {
    id: Uuid,
    status: FileStatus,
}

/// Files that a job of the organization cannot use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnusableFiles {
    /// Unknown, not complete, or of another organization. May become usable.
    pub(crate) pending: Vec<Uuid>,
    /// Deleted or aborted, so never usable.
    pub(crate) gone: Vec<Uuid>,
}

/// Returns the files among `ids` that are not complete files of the organization.
pub(crate) async fn find_unusable_files(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    ids: &[Uuid],
) -> Result<UnusableFiles, sqlx::Error> {
    let rows: Vec<FileStatusRow> =
        sqlx::query_as(FIND_STATUSES).bind(organization).bind(ids).fetch_all(executor).await?;
    let statuses: HashMap<Uuid, FileStatus> = rows.into_iter().map(|file| (file.id, file.status)).collect();
    let mut unusable = UnusableFiles::default();
    for id in ids {
        match statuses.get(id) {
            Some(FileStatus::Completed) => {}
            Some(FileStatus::Aborted | FileStatus::Deleted) => unusable.gone.push(*id),
            Some(FileStatus::Uploading) | None => unusable.pending.push(*id),
        }
    }
    Ok(unusable)
}
