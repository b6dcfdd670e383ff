//! `/internal/v1/organization/authenticate`: the door asks whom a key stands for.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use service_kit::{ApiJson, Caller, Problem, Role};
use uuid::Uuid;

use super::Api;
use crate::{domain::MemberRole, tables::api_keys};

/// A key that somebody has shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authenticate {
    /// The SHA-256 of the key's text: 64 hexadecimal digits.
    key_sha256: String,
}

/// Whom the key stands for.
#[derive(Debug, Serialize)]
pub(crate) struct Authenticated {
    organization: Uuid,
    key_id: Uuid,
    user_id: Option<Uuid>,
    role: MemberRole,
}

/// Says whom a key stands for; 404 when it is unknown or revoked. Changes nothing, so it needs no `Idempotency-Key`.
pub(crate) async fn authenticate(
    State(api): State<Api>,
    caller: Caller,
    ApiJson(shown): ApiJson<Authenticate>,
) -> Result<Json<Authenticated>, Problem> {
    caller.at_least(Role::Service)?;
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&shown.key_sha256, &mut sha256).map_err(|_| {
        let detail = "key_sha256 must be 64 hexadecimal digits";
        Problem::unprocessable(detail).at("/key_sha256", detail)
    })?;
    let found = api_keys::authenticate(api.pool(), &sha256).await?;
    let found = found.ok_or_else(|| Problem::not_found("no valid key has this SHA-256"))?;
    Ok(Json(Authenticated {
        organization: found.organization_id,
        key_id: found.id,
        user_id: found.user_id,
        role: found.role,
    }))
}
