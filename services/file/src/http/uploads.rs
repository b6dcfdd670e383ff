//! Uploads over tus 1.0.0.
//!
//! The problem: what a client believes to have sent and what has arrived differ after every broken connection.
//!
//! The invariant: the aggregate alone says how far an upload is. Bytes are only taken at that offset; what was refused leaves
//! the file as it was.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{Executed, Version, cache::Loaded};
use service_kit::{ApiPath, Caller, Changed, CommandHeaders, IntoProblem, Problem, Role, changed::etag, telemetry};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Api,
    tus::{self, Metadata, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET},
};
use crate::{
    body_receiver::{Received, Target},
    domain::file::{File, FileCommand, FileError, MAX_BYTES, StartUpload},
};

/// The type of a file whose uploader said none.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Says what is offered: the version of tus, its extensions, and the largest size.
#[utoipa::path(
    options, path = "/api/v1/organizations/{org}/uploads", tag = "uploads", operation_id = "describe_uploads",
    params(("org" = Uuid, Path, description = "the organization")),
    responses((status = 204, description = "Tus-Version, Tus-Extension and Tus-Max-Size say what is offered"))
)]
pub(super) async fn options() -> Response {
    tus::offer(MAX_BYTES)
}

/// Begins an upload. With `Content-Type: application/offset+octet-stream` the body is its first bytes.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/uploads", tag = "uploads", operation_id = "create_upload",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Upload-Length" = u64, Header, description = "the file's size in bytes"),
        ("Upload-Metadata" = Option<String>, Header, description = "filename and filetype; values in base64"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key again gives the same upload"),
    ),
    responses(
        (status = 201, body = Changed, description = "Location is the upload, Upload-Offset where to go on"),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: CommandHeaders,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = command.caller.clone();
    caller.in_organization(organization)?;
    caller.at_least(Role::Member)?;
    tus::refuse_unsupported(&headers)?;
    let length = tus::number(&headers, &UPLOAD_LENGTH)?;
    let metadata = Metadata::read(&headers)?;
    if metadata.produced_by_job.is_some() {
        caller.at_least(Role::Service)?;
    }
    let body = tus::is_piece(&headers).then_some(body);
    if body.is_some() && tus::body_bytes(&headers) > length {
        return Err(FileError::ExceedsDeclared { declared: length }.into_problem());
    }
    let metadata_text = headers.get(UPLOAD_METADATA).map(HeaderValue::as_bytes).unwrap_or_default();
    let mut context = command.context(&[length.to_string().as_bytes(), b" ", metadata_text].concat());
    context.tenant = Some(organization);
    let start = FileCommand::Start(StartUpload {
        organization,
        name: metadata.filename.unwrap_or_default(),
        content_type: metadata.filetype.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        declared_bytes: length,
        produced_by_job: metadata.produced_by_job,
    });
    let executed = api.files.create(Uuid::now_v7(), &start, &context).await?;
    let id = executed.aggregate_id;
    let received = match body {
        // Asked again: it may have come further by now, and is somewhere else than the body says.
        _ if executed.repeated => offset_of(&api.files.load(id).await?),
        Some(body) => {
            let at = Target::new(&caller, organization, id, 0, length, executed.version);
            receive(&api, at, body).await?
        }
        None => Received { offset: 0, version: executed.version },
    };
    let executed = Executed { version: received.version, ..executed };
    let created = Changed::created(&executed, |id| format!("/api/v1/organizations/{organization}/uploads/{id}"));
    Ok(([(UPLOAD_OFFSET, HeaderValue::from(received.offset))], created).into_response())
}

/// Says how far an upload is.
#[utoipa::path(
    head, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads", operation_id = "get_upload_offset",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("upload" = Uuid, Path, description = "the upload, which is the file's id"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
    ),
    responses(
        (status = 200, description = "Upload-Offset is where to go on, Upload-Length the file's size"),
        (status = 404, description = "there is no such upload"), (status = 412, description = "another version of tus"),
    )
)]
pub(super) async fn head(
    State(api): State<Api>,
    ApiPath((organization, upload)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
) -> Result<Response, Problem> {
    let Loaded { state, version } = api.existing_file(&caller, organization, Role::Viewer, upload).await?;
    let headers = [
        (UPLOAD_OFFSET, state.received.to_string()),
        (UPLOAD_LENGTH, state.declared.to_string()),
        (UPLOAD_METADATA, Metadata::header(&state.name, &state.content_type)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::ETAG, etag(version)),
    ];
    Ok(headers.into_response())
}

/// Brings the next bytes of an upload. If the connection breaks, what has arrived is kept.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads", operation_id = "append_to_upload",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("upload" = Uuid, Path, description = "the upload, which is the file's id"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Upload-Offset" = u64, Header, description = "where the body's first byte belongs"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "Upload-Offset is where to go on, ETag the file's version"),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "the upload is at another offset; nothing was changed"),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
    )
)]
pub(super) async fn append(
    State(api): State<Api>,
    ApiPath((organization, upload)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let target = admit(&api, &caller, organization, upload, &headers).await?;
    let received = receive(&api, target, body).await?;
    let headers = [(UPLOAD_OFFSET, received.offset.to_string()), (header::ETAG, etag(received.version))];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Gives up an upload. A complete one is a file, and is deleted as such.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads", operation_id = "abort_upload",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("upload" = Uuid, Path, description = "the upload, which is the file's id"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
    ),
    responses(
        (status = 204, description = "given up; its bytes are discarded"),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem),
    )
)]
pub(super) async fn abort(
    State(api): State<Api>,
    ApiPath((organization, upload)): ApiPath<(Uuid, Uuid)>,
    command: CommandHeaders,
) -> Result<Response, Problem> {
    api.file(&command.caller, organization, Role::Member, upload).await?;
    let mut context = command.context(&[]);
    context.tenant = Some(organization);
    let executed = api.files.execute(upload, &FileCommand::Abort, &context).await?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(executed.version))]).into_response())
}

/// Checks all that can be checked before the body is read. The aggregate checks it again when a part is recorded.
async fn admit(
    api: &Api,
    caller: &Caller,
    organization: Uuid,
    upload: Uuid,
    headers: &HeaderMap,
) -> Result<Target, Problem> {
    let Loaded { state, version } = api.existing_file(caller, organization, Role::Member, upload).await?;
    if !tus::is_piece(headers) {
        return Err(tus::not_a_piece());
    }
    tus::refuse_unsupported(headers)?;
    let offset = tus::number(headers, &UPLOAD_OFFSET)?;
    if offset != state.received {
        return Err(FileError::OffsetMismatch { expected: state.received }.into_problem());
    }
    if tus::body_bytes(headers) > state.left() {
        return Err(FileError::ExceedsDeclared { declared: state.declared }.into_problem());
    }
    Ok(Target::new(caller, organization, upload, offset, state.left(), version))
}

impl Target {
    fn new(caller: &Caller, organization: Uuid, file: Uuid, offset: u64, left: u64, version: Version) -> Self {
        let trace_context = telemetry::traceparent_of_current_span().map(Into::into);
        Self { file, organization, actor: caller.actor.clone(), trace_context, offset, left, version }
    }
}

async fn receive(api: &Api, target: Target, body: Body) -> Result<Received, Problem> {
    let receiver = api.receiver.clone();
    // A server may drop this request when its connection breaks; what has arrived is to be stored all the same.
    let receiving = tokio::spawn(async move { receiver.receive(target, body).await }.in_current_span());
    Ok(receiving.await.map_err(Problem::internal)??)
}

fn offset_of(loaded: &Loaded<File>) -> Received {
    Received { offset: loaded.state.received, version: loaded.version }
}
