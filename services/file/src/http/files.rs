//! `/api/v1/organizations/{org}/files`

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use contracts::file::AGGREGATE;
use epoch::{Timestamp, envelope::StreamKey};
use epoch_postgres::Projection;
use http_kit::{
    ApiPath, ApiQuery, Caller, Command, CommandResponse, Page, PageQuery, Problem, Role,
    access::require,
    min_version::MinVersion,
    parameters::{IfMatch, OptionalIdempotencyKey, OrganizationPath},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    parameters::FilePath,
    problem::{ReadProblems, WriteProblems, file_not_found},
    state::HttpState,
};
use crate::{
    domain::file::FileCommand,
    projections::files::FilesProjection,
    queries::files::{self, FileRow, FileStatus},
};

/// File without its content.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FileResponse {
    /// File id.
    id: Uuid,
    /// Organization that owns the file.
    organization_id: Uuid,
    /// File name.
    #[schema(example = "measurements.csv")]
    name: String,
    /// Media type, as declared by the upload.
    #[schema(example = "text/csv")]
    content_type: String,
    /// Presently stored bytes: the received bytes while uploading, the size of a completed file, 0 after an abort or a
    /// deletion.
    #[schema(example = 1_048_576)]
    bytes: i64,
    /// Status of the file.
    status: FileStatus,
    /// Job that produced the file as an output; null for an uploaded file.
    produced_by_job: Option<Uuid>,
    /// Time at which the upload started (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
    /// Time at which the last byte was stored (RFC 3339, UTC); null before that.
    #[schema(format = DateTime, example = "2026-01-31T12:01:00.000Z")]
    completed_at: Option<String>,
    /// Version of the file; also the `ETag` of a read.
    #[schema(example = 3)]
    version: i64,
}

impl From<FileRow> for FileResponse {
    fn from(row: FileRow) -> Self {
        let instant = |millis| Timestamp::from_millis(millis).to_string();
        Self {
            id: row.id,
            organization_id: row.organization_id,
            name: row.name,
            content_type: row.content_type,
            bytes: row.bytes,
            status: row.status,
            produced_by_job: row.produced_by_job,
            created_at: instant(row.created_at),
            completed_at: row.completed_at.map(instant),
            version: row.version,
        }
    }
}

/// Filter of a list of files.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusFilter {
    /// Returns only files of this status. Default: `completed`.
    #[serde(default)]
    status: Option<FileStatus>,
}

/// List files.
///
/// Returns the files of an organization with one status, newest first. Requires the role `viewer`.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files", tag = "files", params(OrganizationPath, StatusFilter, PageQuery),
    responses((status = 200, description = "One page of files.", body = Page<FileResponse>), ReadProblems)
)]
pub(super) async fn list_files(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
    ApiQuery(filter): ApiQuery<StatusFilter>,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<FileResponse>>, Problem> {
    require(&caller, org, Role::Viewer)?;
    let status = filter.status.unwrap_or(FileStatus::Completed);
    let fetch = |after, limit| files::list(&state.pool, org, status, after, limit);
    Ok(Json(Page::fetch(&page, |row: &FileRow| row.id, fetch).await?.map(FileResponse::from)))
}

/// Get a file.
///
/// Returns a file of any status: an aborted or deleted file stays readable, because its usage is still billed. Requires
/// the role `viewer`.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files/{file}", tag = "files", params(FilePath, MinVersion),
    responses(
        (status = 200, description = "The file.", body = FileResponse, headers(
            ("ETag" = String, description = "Version of the file, for `If-Match`."),
        )),
        (status = 503, description = "The read model has not reached `min_version` yet.",
            body = Problem, content_type = "application/problem+json", headers(
            ("Retry-After" = u64, description = "Seconds to wait before the next attempt."),
        )),
        ReadProblems,
    )
)]
pub(super) async fn get_file(
    State(state): State<HttpState>,
    ApiPath(FilePath { org, file }): ApiPath<FilePath>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    require(&caller, org, Role::Viewer)?;
    let stream = StreamKey { aggregate: AGGREGATE.into(), id: file };
    min.wait(&state.progress, FilesProjection::NAME, &stream).await?;
    let row = files::find(&state.pool, org, file).await?.ok_or_else(|| file_not_found(file))?;
    let etag = format!("\"{}\"", row.version);
    Ok(([(header::ETAG, etag)], Json(FileResponse::from(row))).into_response())
}

/// Delete a file.
///
/// Deletes a completed file and frees its bytes. An unfinished upload is aborted with `DELETE …/uploads/{upload}`
/// instead. Requires the role `member`.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/files/{file}", tag = "files",
    params(FilePath, OptionalIdempotencyKey, IfMatch),
    responses(
        (status = 200, description = "The file was deleted.", body = CommandResponse, headers(
            ("ETag" = String, description = "Version of the file."),
        )),
        (status = 409, description = "The upload of the file is not complete.",
            body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The file is not at the version of `If-Match`.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        WriteProblems,
    )
)]
pub(super) async fn delete_file(
    State(state): State<HttpState>,
    ApiPath(FilePath { org, file }): ApiPath<FilePath>,
    command: Command<()>,
) -> Result<CommandResponse, Problem> {
    state.load_file(&command.caller, org, Role::Member, file).await?;
    let context = command.context.for_tenant(org);
    Ok(state.files.execute(file, &FileCommand::Delete, &context).await?.into())
}
