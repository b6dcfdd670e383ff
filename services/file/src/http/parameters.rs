//! Path parameters, headers and binary bodies of the public routes.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Path of one organization.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OrganizationPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
}

/// Path of one file.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct FilePath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// File id.
    #[param(example = "0198c0de-0000-7000-8000-000000000004")]
    pub(super) file: Uuid,
}

/// Path of one upload.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UploadPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// Upload id, which is also the id of the resulting file.
    #[param(example = "0198c0de-0000-7000-8000-000000000004")]
    pub(super) upload: Uuid,
}

/// Header of every tus request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct TusResumable {
    /// Version of the tus protocol. The only supported version is `1.0.0`.
    #[param(rename = "Tus-Resumable", example = "1.0.0")]
    tus_resumable: String,
}

/// Headers of every change of a file or an upload.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers in the OpenAPI document")]
pub(super) struct CommandParameters {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Sending the same request with the same key again
    /// returns the first result. Default: none, so that a repeated request is a new one.
    #[param(rename = "Idempotency-Key", example = "delete-report-1")]
    idempotency_key: Option<String>,
    /// `ETag` of the file version that the change expects. Any other current version returns 412. Default: the change
    /// applies to any version.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
}

/// Bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes a body in the OpenAPI document")]
pub(super) struct FileBytes(Vec<u8>);
