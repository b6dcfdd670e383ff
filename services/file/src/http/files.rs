//! Files: the list, one of them, and its deletion.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use contracts::file::AGGREGATE;
use epoch::{Timestamp, Version, envelope::StreamKey};
use epoch_postgres::WaitError;
use serde::{Deserialize, Serialize};
use service_kit::{
    ApiPath, ApiQuery, Caller, Changed, Command, Page, PageQuery, Problem, Role,
    min_version::{MinVersion, not_reached},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Api, problem};
use crate::{
    domain::file::FileCommand,
    projections::files::{self, FileRow, FileStatus, SUBSCRIPTION},
};

/// How long a read waits for the version it asks for.
const WAIT: Duration = Duration::from_secs(2);

/// A file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = File)]
pub(super) struct FileView {
    /// Names the file.
    id: Uuid,
    /// Who owns it.
    organization_id: Uuid,
    /// Its name.
    name: String,
    /// Its media type, as the uploader said.
    content_type: String,
    /// How many bytes are stored now: the whole file's when it is complete, 0 when it is no more.
    bytes: i64,
    /// How far it is.
    status: FileStatus,
    /// The job it is an output of.
    produced_by_job: Option<Uuid>,
    /// When the upload began.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the last byte was stored.
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    /// Its version.
    version: i64,
}

impl From<FileRow> for FileView {
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

/// Which files.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// Only files that are this far; completed ones if not said.
    #[serde(default)]
    status: Option<FileStatus>,
}

/// The organization's files, newest first.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files", tag = "files", operation_id = "list_files",
    params(("org" = Uuid, Path, description = "the organization"), StatusQuery, PageQuery),
    responses(
        (status = 200, body = Page<FileView>), (status = 400, body = Problem), (status = 404, body = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(query): ApiQuery<StatusQuery>,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<FileView>>, Problem> {
    caller.in_organization(organization)?;
    caller.at_least(Role::Viewer)?;
    let (after, limit) = (page.after::<Uuid>()?, page.limit()?);
    let status = query.status.unwrap_or(FileStatus::Completed);
    let one_more = i64::try_from(limit + 1).map_err(Problem::internal)?;
    let rows = files::list(&api.pool, organization, status, after, one_more).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(FileView::from)))
}

/// One file; also one that was aborted or deleted, since its past is looked up by its id.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files/{file}", tag = "files", operation_id = "get_file",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("file" = Uuid, Path, description = "the file"),
        MinVersion,
    ),
    responses(
        (status = 200, body = FileView, description = "ETag is the file's version"),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn read(
    State(api): State<Api>,
    ApiPath((organization, file)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    caller.in_organization(organization)?;
    caller.at_least(Role::Viewer)?;
    if let Some(wanted) = min.version() {
        wait_for(&api, file, wanted).await?;
    }
    let row = files::find(&api.pool, organization, file).await?.ok_or_else(|| problem::no_file(file))?;
    let etag = format!("\"{}\"", row.version);
    Ok(([(header::ETAG, etag)], Json(FileView::from(row))).into_response())
}

/// Deletes a complete file; its bytes are freed.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/files/{file}", tag = "files", operation_id = "delete_file",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("file" = Uuid, Path, description = "the file"),
        ("If-Match" = Option<String>, Header, description = "only at this version"),
    ),
    responses(
        (status = 200, body = Changed), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "it isn't complete"), (status = 412, body = Problem),
    )
)]
pub(super) async fn remove(
    State(api): State<Api>,
    ApiPath((organization, file)): ApiPath<(Uuid, Uuid)>,
    command: Command<()>,
) -> Result<Changed, Problem> {
    api.file(&command.caller, organization, Role::Member, file).await?;
    let mut context = command.context;
    context.tenant = Some(organization);
    Ok(api.files.execute(file, &FileCommand::Delete, &context).await?.into())
}

async fn wait_for(api: &Api, file: Uuid, wanted: Version) -> Result<(), Problem> {
    let stream = StreamKey { aggregate: AGGREGATE.into(), id: file };
    match api.progress.wait_for(SUBSCRIPTION, &stream, wanted, WAIT).await {
        Ok(()) => Ok(()),
        Err(WaitError::NotReached { wanted, reached, .. }) => Err(not_reached(wanted, reached)),
        Err(WaitError::Store(error)) => Err(error.into()),
    }
}
