//! Path parameters and command headers of the public routes.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// Path of one organization.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OrganizationPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
}

/// Path of one member.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MemberPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// User id of the member.
    #[param(example = "0198c0de-0000-7000-8000-000000000002")]
    pub(super) user: Uuid,
}

/// Path of one API key.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ApiKeyPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// API key id.
    #[param(example = "0198c0de-0000-7000-8000-000000000003")]
    pub(super) key: Uuid,
}

/// Header of every POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct RequiredIdempotencyKey {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Sending the same request with the same key again
    /// returns the first result and changes nothing. A different request with the same key returns 422.
    #[param(rename = "Idempotency-Key", example = "create-acme-1")]
    idempotency_key: String,
}

/// Header of PATCH and DELETE.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct OptionalIdempotencyKey {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Default: none, so that a repeated request is a
    /// new one.
    #[param(rename = "Idempotency-Key", example = "rename-acme-1")]
    idempotency_key: Option<String>,
}

/// Header of every change of an organization.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct IfMatch {
    /// `ETag` of the organization version that the change expects. Any other current version returns 412. Default: the
    /// change applies to any version.
    #[param(rename = "If-Match", example = "\"7\"")]
    if_match: Option<String>,
}
