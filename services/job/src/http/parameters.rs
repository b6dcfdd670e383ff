//! Path and header parameters shared by several routes.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OrganizationPath {
    /// Organization id.
    #[param(example = "0198c5a2-7d1e-7c3a-9f00-3b1f5c2e8a10")]
    pub(super) org: Uuid,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct JobConfigurationPath {
    /// Organization id.
    #[param(example = "0198c5a2-7d1e-7c3a-9f00-3b1f5c2e8a10")]
    pub(super) org: Uuid,
    /// Job configuration id.
    #[param(example = "0198c5a4-02b7-7a51-8c6d-91d2f0a4b7e3")]
    pub(super) configuration: Uuid,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct JobPath {
    /// Organization id.
    #[param(example = "0198c5a2-7d1e-7c3a-9f00-3b1f5c2e8a10")]
    pub(super) org: Uuid,
    /// Job id.
    #[param(example = "0198c5a9-6e40-7f12-b3a8-0c55d7e91f26")]
    pub(super) job: Uuid,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents a header; the extractor `Command` reads it")]
pub(super) struct IdempotencyKey {
    /// Unique key of the request, 1 to 255 visible ASCII characters. A repeated request with the same key and body changes
    /// nothing and returns the first result; another body under the same key is rejected with 422.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        example = "5b1d9a52-3f0c-4a7e-9a61-0d3c2f6b8e17"
    )]
    idempotency_key: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents a header; the extractor `Command` reads it")]
pub(super) struct IfMatch {
    /// Version that the request is based on, as returned in `ETag`. The request is rejected with 412 when the current
    /// version differs. Default: no check.
    #[param(rename = "If-Match", required = false, example = "\"3\"")]
    if_match: String,
}
