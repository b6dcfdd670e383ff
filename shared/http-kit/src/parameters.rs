//! Parameters of routes, as the OpenAPI document describes them.
//!
//! The header types are only documentation: [`Command`](crate::Command) and [`CommandHeaders`](crate::CommandHeaders) read
//! the headers.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// The path of an organization.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OrganizationPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub org: Uuid,
}

/// The header of every POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub struct IdempotencyKey {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Sending the same request with the same key again
    /// returns the first result and changes nothing. A different request with the same key returns 422.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        example = "5b1d9a52-3f0c-4a7e-9a61-0d3c2f6b8e17"
    )]
    idempotency_key: String,
}

/// The header of a command by another method than POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub struct OptionalIdempotencyKey {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Sending the same request with the same key again
    /// returns the first result. Default: none, so that a repeated request is a new one.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        example = "5b1d9a52-3f0c-4a7e-9a61-0d3c2f6b8e17"
    )]
    idempotency_key: String,
}

/// The header of a command to an existing resource.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub struct IfMatch {
    /// `ETag` of the version that the change expects. Any other current version returns 412. Default: the change applies
    /// to any version.
    #[param(rename = "If-Match", required = false, example = "\"3\"")]
    if_match: String,
}
