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

/// Path of one calendar month of an account.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MonthPath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    pub(super) org: Uuid,
    /// Calendar month in the account's time zone.
    #[param(example = "2026-03")]
    pub(super) month: String,
}

/// Path of one invoice.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InvoicePath {
    /// Organization id.
    #[param(example = "0198c0de-0000-7000-8000-000000000001")]
    #[expect(dead_code, reason = "`ViewedOrganization` reads and checks it")]
    org: Uuid,
    /// Calendar month, e.g. `2026-03`, or the id of an invoice. A month selects its current invoice. A void invoice is
    /// selected by its id.
    #[param(example = "2026-03")]
    pub(super) month: String,
}

/// Path of one plan.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PlanPath {
    /// Plan id.
    #[param(example = "0198c0de-0000-7000-8000-000000000004")]
    pub(super) plan: Uuid,
}

/// Header of every POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct IdempotencyKey {
    /// Unique key of this request, 1 to 255 visible ASCII characters. Sending the same request with the same key again
    /// returns the first result and changes nothing. A different request with the same key returns 422.
    #[param(rename = "Idempotency-Key", example = "grant-credit-2026-03")]
    idempotency_key: String,
}

/// Header of a change that may expect a version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header in the OpenAPI document")]
pub(super) struct IfMatch {
    /// `ETag` of the account version that the change expects. Any other current version returns 412. Default: the change
    /// applies to any version.
    #[param(rename = "If-Match", example = "\"7\"")]
    if_match: Option<String>,
}
