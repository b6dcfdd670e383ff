//! Path parameters, headers and binary bodies of the public routes.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

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

/// Bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes a body in the OpenAPI document")]
pub(super) struct FileBytes(Vec<u8>);
