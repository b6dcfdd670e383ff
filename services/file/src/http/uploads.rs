//! `/api/v1/organizations/{org}/uploads`: resumable uploads over tus 1.0.0.
//!
//! After a broken connection the client cannot know how many of its bytes have arrived. The aggregate alone holds the
//! offset of an upload. Bytes are accepted only at that offset, and a rejected request leaves the file unchanged.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecutionOutcome, Version, VersionedState};
use http_kit::{
    ApiPath, Caller, CommandHeaders, CommandResponse, IntoProblem, Problem, Role,
    access::require,
    command_response::etag,
    parameters::{IfMatch, OptionalIdempotencyKey, OrganizationPath},
    trace_context,
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    parameters::{FileBytes, TusResumable, UploadPath},
    problem::{ReceiveProblems, WriteProblems},
    state::HttpState,
    tus::{self, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, UploadMetadata},
};
use crate::{
    body_receiver::{UploadPosition, UploadTarget},
    domain::file::{File, FileCommand, FileError, MAX_BYTES, StartUpload},
};

/// Media type of a file whose upload declares none.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// Describe the upload protocol.
///
/// Returns the supported version of tus, its extensions, and the maximum size of a file. Needs no API key.
#[utoipa::path(
    options, path = "/api/v1/organizations/{org}/uploads", tag = "uploads", params(OrganizationPath), security(()),
    responses((status = 204, description = "Capabilities of the server.", headers(
        ("Tus-Resumable" = String, description = "Version of this response: `1.0.0`."),
        ("Tus-Version" = String, description = "Supported versions: `1.0.0`."),
        ("Tus-Extension" = String, description = "Supported extensions: `creation,creation-with-upload,termination`."),
        ("Tus-Max-Size" = u64, description = "Maximum size of a file in bytes: 5497558138880 (5 TiB)."),
    )))
)]
pub(super) async fn describe_uploads() -> Response {
    tus::capabilities(MAX_BYTES)
}

/// Create an upload.
///
/// Starts an upload of a declared size. With `Content-Type: application/offset+octet-stream` the body holds the first
/// bytes of the file; any other body is ignored. Requires the role `member`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/uploads", tag = "uploads",
    params(
        OrganizationPath, TusResumable,
        ("Upload-Length" = u64, Header, example = 1048576, description = "Size of the file in bytes, at most 5 TiB."),
        ("Upload-Metadata" = String, Header, example = "filename bWVhc3VyZW1lbnRzLmNzdg==,filetype dGV4dC9jc3Y=",
            description = "Comma-separated pairs of a key and a base64 value. `filename` is required; `filetype` is the \
                media type, by default `application/octet-stream`."),
        ("Idempotency-Key" = Option<String>, Header, example = "upload-measurements-1",
            description = "Unique key of this request, 1 to 255 visible ASCII characters. The same request with the same \
                key returns the first upload. Default: none, so that a repeated request creates another upload."),
    ),
    request_body(description = "First bytes of the file, or nothing.",
        content = FileBytes, content_type = "application/offset+octet-stream"),
    responses(
        (status = 201, description = "The upload was created.", body = CommandResponse, headers(
            ("Location" = String, description = "Path of the upload."),
            ("Upload-Offset" = u64, description = "Offset at which the next request continues."),
            ("ETag" = String, description = "Version of the file."),
            ("Tus-Resumable" = String, description = "`1.0.0`"),
        )),
        (status = 422, description = "The file name or media type is invalid, or the `Idempotency-Key` belongs to \
            another request.", body = Problem, content_type = "application/problem+json"),
        WriteProblems, ReceiveProblems,
    )
)]
pub(super) async fn create_upload(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: CommandHeaders,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = command.caller.clone();
    require(&caller, org, Role::Member)?;
    tus::reject_unsupported(&headers)?;
    let length = tus::parse_number(&headers, &UPLOAD_LENGTH)?;
    let metadata = UploadMetadata::from_headers(&headers)?;
    if metadata.produced_by_job.is_some() {
        caller.at_least(Role::Service)?;
    }
    let body = tus::has_content_body(&headers).then_some(body);
    if body.is_some() && tus::content_length(&headers) > length {
        return Err(FileError::ExceedsDeclared { declared: length }.into_problem());
    }
    let metadata_text = headers.get(UPLOAD_METADATA).map(HeaderValue::as_bytes).unwrap_or_default();
    let context = command.context(&[length.to_string().as_bytes(), b" ", metadata_text].concat()).for_tenant(org);
    let start = FileCommand::Start(StartUpload {
        organization: org,
        name: metadata.filename.unwrap_or_default(),
        content_type: metadata.filetype.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned()),
        declared_bytes: length,
        produced_by_job: metadata.produced_by_job,
    });
    let executed = state.files.create(Uuid::now_v7(), &start, &context).await?;
    let id = executed.aggregate_id;
    let position = match body {
        // The upload of a repeated request may have more bytes by now, so the body may no longer start at its offset.
        _ if executed.repeated => position_of(&state.files.load(id).await?),
        Some(body) => {
            let target =
                upload_target(&caller, org, id, UploadRange { offset: 0, remaining: length }, executed.version);
            receive(&state, target, body).await?
        }
        None => UploadPosition { offset: 0, version: executed.version },
    };
    let executed = ExecutionOutcome { version: position.version, ..executed };
    let created = CommandResponse::created(&executed, |id| format!("/api/v1/organizations/{org}/uploads/{id}"));
    Ok(([(UPLOAD_OFFSET, HeaderValue::from(position.offset))], created).into_response())
}

/// Get the offset of an upload.
///
/// Returns the number of received bytes, at which the next request continues. Requires the role `viewer`.
#[utoipa::path(
    head, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads", params(UploadPath, TusResumable),
    responses(
        (status = 200, description = "Position of the upload.", headers(
            ("Upload-Offset" = u64, description = "Offset at which the next request continues."),
            ("Upload-Length" = u64, description = "Declared size of the file in bytes."),
            ("Upload-Metadata" = String, description = "`filename` and `filetype`, with base64 values."),
            ("ETag" = String, description = "Version of the file."),
            ("Cache-Control" = String, description = "Always `no-store`."),
            ("Tus-Resumable" = String, description = "`1.0.0`"),
        )),
        (status = 401, description = "The request has no valid API key."),
        (status = 404, description = "The upload does not exist, or was aborted or deleted."),
        (status = 412, description = "`Tus-Resumable` is missing or is another version of tus."),
    )
)]
pub(super) async fn get_upload_offset(
    State(state): State<HttpState>,
    ApiPath(UploadPath { org, upload }): ApiPath<UploadPath>,
    caller: Caller,
) -> Result<Response, Problem> {
    let VersionedState { state: file, version } = state.load_existing_file(&caller, org, Role::Viewer, upload).await?;
    let headers = [
        (UPLOAD_OFFSET, file.received.to_string()),
        (UPLOAD_LENGTH, file.declared.to_string()),
        (UPLOAD_METADATA, UploadMetadata::header_value(&file.name, &file.content_type)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::ETAG, etag(version)),
    ];
    Ok(headers.into_response())
}

/// Append bytes to an upload.
///
/// Appends the body at `Upload-Offset`. The last byte completes the file. If the connection breaks, the received bytes
/// are kept, and the upload continues at the offset that HEAD returns. Requires the role `member`.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads",
    params(
        UploadPath, TusResumable,
        ("Upload-Offset" = u64, Header, example = 0, description = "Offset of the body's first byte in the file."),
    ),
    request_body(description = "Next bytes of the file.",
        content = FileBytes, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "The bytes are stored.", headers(
            ("Upload-Offset" = u64, description = "Offset at which the next request continues."),
            ("ETag" = String, description = "Version of the file."),
            ("Tus-Resumable" = String, description = "`1.0.0`"),
        )),
        (status = 409, description = "The upload is at another offset. Nothing was changed.",
            body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The `Content-Type` is not `application/offset+octet-stream`.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The upload has too many parts; send more bytes per request.",
            body = Problem, content_type = "application/problem+json"),
        WriteProblems, ReceiveProblems,
    )
)]
pub(super) async fn append_to_upload(
    State(state): State<HttpState>,
    ApiPath(UploadPath { org, upload }): ApiPath<UploadPath>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let target = check_append(&state, &caller, org, upload, &headers).await?;
    let position = receive(&state, target, body).await?;
    let headers = [(UPLOAD_OFFSET, position.offset.to_string()), (header::ETAG, etag(position.version))];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Abort an upload.
///
/// Aborts an unfinished upload and discards its bytes. A completed upload is a file, and is deleted with `DELETE
/// …/files/{file}`. Requires the role `member`.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/uploads/{upload}", tag = "uploads",
    params(UploadPath, TusResumable, OptionalIdempotencyKey, IfMatch),
    responses(
        (status = 204, description = "The upload was aborted.", headers(
            ("ETag" = String, description = "Version of the file."),
            ("Tus-Resumable" = String, description = "`1.0.0`"),
        )),
        (status = 409, description = "The upload is complete.",
            body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`Tus-Resumable` is missing or is another version of tus, or the file is not at \
            the version of `If-Match`.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        WriteProblems,
    )
)]
pub(super) async fn abort_upload(
    State(state): State<HttpState>,
    ApiPath(UploadPath { org, upload }): ApiPath<UploadPath>,
    command: CommandHeaders,
) -> Result<Response, Problem> {
    state.load_file(&command.caller, org, Role::Member, upload).await?;
    let context = command.context(&[]).for_tenant(org);
    let executed = state.files.execute(upload, &FileCommand::Abort, &context).await?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(executed.version))]).into_response())
}

/// Checks a request to append before its body is read. The aggregate repeats the checks of offset and size for each
/// part, because another request may change the upload in the meantime.
async fn check_append(
    state: &HttpState,
    caller: &Caller,
    organization: Uuid,
    upload: Uuid,
    headers: &HeaderMap,
) -> Result<UploadTarget, Problem> {
    let VersionedState { state: file, version } =
        state.load_existing_file(caller, organization, Role::Member, upload).await?;
    if !tus::has_content_body(headers) {
        return Err(tus::unsupported_body_type());
    }
    tus::reject_unsupported(headers)?;
    let offset = tus::parse_number(headers, &UPLOAD_OFFSET)?;
    if offset != file.received {
        return Err(FileError::OffsetMismatch { expected: file.received }.into_problem());
    }
    let remaining = file.remaining();
    if tus::content_length(headers) > remaining {
        return Err(FileError::ExceedsDeclared { declared: file.declared }.into_problem());
    }
    Ok(upload_target(caller, organization, upload, UploadRange { offset, remaining }, version))
}

/// Bytes that an upload accepts.
struct UploadRange {
    offset: u64,
    remaining: u64,
}

fn upload_target(
    caller: &Caller,
    organization: Uuid,
    file: Uuid,
    UploadRange { offset, remaining }: UploadRange,
    version: Version,
) -> UploadTarget {
    let trace_context = trace_context::traceparent_of_current_span().map(Into::into);
    UploadTarget { file, organization, actor: caller.actor.clone(), trace_context, offset, remaining, version }
}

async fn receive(state: &HttpState, target: UploadTarget, body: Body) -> Result<UploadPosition, Problem> {
    let receiver = state.receiver.clone();
    // The server drops this request when the client disconnects. The task outlives it and records the received bytes.
    let receiving = tokio::spawn(async move { receiver.receive(target, body).await }.in_current_span());
    Ok(receiving.await.map_err(Problem::internal)??)
}

fn position_of(loaded: &VersionedState<File>) -> UploadPosition {
    UploadPosition { offset: loaded.state.received, version: loaded.version }
}
