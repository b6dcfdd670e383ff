//! `/internal/v1/organization/authenticate`: lookup of an API key for the gateway.

use axum::{Json, extract::State};
use http_kit::{ApiJson, Caller, Problem, Role};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::HttpState;
use crate::{domain::MemberRole, tables::api_keys};

/// Digest of a presented API key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthenticateRequest {
    /// SHA-256 of the key's text, as 64 hexadecimal digits.
    key_sha256: String,
}

/// Identity and role of a valid API key.
#[derive(Debug, Serialize)]
pub(super) struct AuthenticateResponse {
    organization: Uuid,
    key_id: Uuid,
    user_id: Option<Uuid>,
    role: MemberRole,
}

/// Returns the identity of a valid key, or 404 for an unknown or revoked key. Changes nothing, so a retry needs no
/// `Idempotency-Key`.
pub(super) async fn authenticate(
    State(state): State<HttpState>,
    caller: Caller,
    ApiJson(request): ApiJson<AuthenticateRequest>,
) -> Result<Json<AuthenticateResponse>, Problem> {
    caller.at_least(Role::Service)?;
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&request.key_sha256, &mut sha256).map_err(|_| {
        let detail = "key_sha256 must be 64 hexadecimal digits";
        Problem::unprocessable(detail).at("/key_sha256", detail)
    })?;
    let identity = api_keys::find_valid_by_digest(state.pool(), &sha256).await?;
    let identity = identity.ok_or_else(|| Problem::not_found("no valid key has this SHA-256"))?;
    Ok(Json(AuthenticateResponse {
        organization: identity.organization_id,
        key_id: identity.id,
        user_id: identity.user_id,
        role: identity.role,
    }))
}
