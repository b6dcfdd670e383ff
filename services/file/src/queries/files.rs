//! Queries on the read model `files`.

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

const FIND: &str = include_str!("find_file.sql");
const LIST: &str = include_str!("list_files.sql");

/// Status of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum FileStatus {
    /// The upload has not received all bytes yet.
    Uploading,
    /// All bytes are stored.
    Completed,
    /// The upload was aborted.
    Aborted,
    /// The file was deleted.
    Deleted,
}

impl FileStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            FileStatus::Uploading => "uploading",
            FileStatus::Completed => "completed",
            FileStatus::Aborted => "aborted",
            FileStatus::Deleted => "deleted",
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct FileRow {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) name: String,
    pub(crate) content_type: String,
    /// Presently stored bytes.
    pub(crate) bytes: i64,
    pub(crate) status: FileStatus,
    pub(crate) produced_by_job: Option<Uuid>,
    /// UTC milliseconds.
    pub(crate) created_at: i64,
    /// UTC milliseconds.
    pub(crate) completed_at: Option<i64>,
    pub(crate) version: i64,
}

/// Returns one file of an organization.
pub(crate) async fn find(pool: &PgPool, organization: Uuid, id: Uuid) -> Result<Option<FileRow>, sqlx::Error> {
    sqlx::query_as(FIND).bind(id).bind(organization).fetch_optional(pool).await
}

/// Returns up to `limit` files of one status with ids below `after`, newest first. Without `after` it starts at the
/// newest.
pub(crate) async fn list(
    pool: &PgPool,
    organization: Uuid,
    status: FileStatus,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<FileRow>, sqlx::Error> {
    sqlx::query_as(LIST)
        .bind(organization)
        .bind(status.as_str())
        .bind(after.unwrap_or(Uuid::max()))
        .bind(limit)
        .fetch_all(pool)
        .await
}
