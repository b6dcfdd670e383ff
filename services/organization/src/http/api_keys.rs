//! `/api/v1/organizations/{org}/api-keys`
//!
//! A key's text is returned once, and that response may be lost. Therefore the id of a key is the id of the command
//! that creates it, and the text follows from the id. A repeated request returns the same key; a different request
//! under the same `Idempotency-Key` is rejected.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecuteError, Timestamp};
use http_kit::{
    ApiPath, ApiQuery, Caller, Command, Page, PageQuery, Problem, Role,
    access::does_not_exist,
    api_key::ApiKey,
    page::row_limit,
    parameters::{IdempotencyKey, OrganizationPath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    access::{require, require_authority},
    parameters::ApiKeyPath,
    problem::{AdminProblems, JsonCommandProblems},
    state::HttpState,
    validation::parse_name,
};
use crate::{
    domain::{MemberRole, OrganizationError},
    tables::api_keys::{self, ApiKeyRow, NewApiKey},
};

/// Request to create an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateApiKeyRequest {
    /// Purpose of the key, 1 to 200 characters.
    #[schema(example = "CI")]
    name: String,
    /// Role of the key, at most the caller's own role. Default: `member`.
    #[serde(default = "default_role")]
    #[schema(default = "member")]
    role: MemberRole,
}

fn default_role() -> MemberRole {
    MemberRole::Member
}

/// New API key with its text. No later response contains the text.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedApiKeyResponse {
    /// API key id; not secret.
    id: Uuid,
    /// Text of the key, for `Authorization: Bearer <key>`.
    key: String,
    /// Purpose of the key.
    #[schema(example = "CI")]
    name: String,
    /// Role of the key.
    role: MemberRole,
    /// Time of creation (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
}

/// API key without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiKeyResponse {
    /// API key id.
    id: Uuid,
    /// Purpose of the key.
    #[schema(example = "CI")]
    name: String,
    /// Role of the key.
    role: MemberRole,
    /// User that the key acts for; null for a key that the operator or another key created.
    user_id: Option<Uuid>,
    /// Time of creation (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
    /// Time of revocation (RFC 3339, UTC); null for a valid key.
    #[schema(format = DateTime, example = "2026-02-28T12:00:00.000Z")]
    revoked_at: Option<String>,
}

impl From<ApiKeyRow> for ApiKeyResponse {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            user_id: row.user_id,
            created_at: Timestamp::from_millis(row.created_at).to_string(),
            revoked_at: row.revoked_at.map(|at| Timestamp::from_millis(at).to_string()),
        }
    }
}

/// Create an API key.
///
/// Returns the text of the key in this response only. The key acts for the calling user, and is revoked when that user
/// is removed from the organization. Requires the role `admin`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/api-keys", tag = "api-keys",
    params(OrganizationPath, IdempotencyKey), request_body = CreateApiKeyRequest,
    responses(
        (status = 201, description = "The key was created.", body = CreatedApiKeyResponse, headers(
            ("Location" = String, description = "Path of the key."),
            ("Cache-Control" = String, description = "Always `no-store`."),
        )),
        AdminProblems, JsonCommandProblems,
    )
)]
pub(super) async fn create_api_key(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<CreateApiKeyRequest>,
) -> Result<Response, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let role = command.body.role;
    require_authority(role, MemberRole::authority_of(command.caller.role))?;
    let name = parse_name(&command.body.name, "/name")?;
    state.require_exists(org).await?;

    let id = command.context.command_id;
    let fingerprint = command.context.idempotency.map(|request| request.fingerprint).unwrap_or_default();
    let key = ApiKey::issue(id, &state.secrets);
    let new = NewApiKey {
        id,
        organization_id: org,
        user_id: key_owner(&command.caller),
        name: &name,
        role,
        sha256: key.digest(),
        fingerprint: &fingerprint,
        created_at: command.context.occurred_at,
    };
    api_keys::insert(state.pool(), &new).await?;
    let stored = api_keys::find(state.pool(), org, id).await?.filter(|row| row.fingerprint == fingerprint);
    let Some(stored) = stored else {
        return Err(ExecuteError::<OrganizationError>::CommandReused { command_id: id }.into());
    };
    let location = format!("/api/v1/organizations/{org}/api-keys/{id}");
    let created = CreatedApiKeyResponse {
        id,
        key: key.reveal(),
        name: stored.name,
        role: stored.role,
        created_at: Timestamp::from_millis(stored.created_at).to_string(),
    };
    // No cache may store the key.
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// Returns the user that a new key acts for: the calling user, but never an operator.
fn key_owner(caller: &Caller) -> Option<Uuid> {
    caller.user_id.filter(|_| caller.role < Role::Operator)
}

/// List API keys.
///
/// Returns valid and revoked keys without their texts, newest first. Requires the role `admin`.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/api-keys", tag = "api-keys", params(OrganizationPath, PageQuery),
    responses(
        (status = 200, description = "One page of API keys.", body = Page<ApiKeyResponse>),
        AdminProblems,
    )
)]
pub(super) async fn list_api_keys(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<ApiKeyResponse>>, Problem> {
    require(&caller, org, Role::Admin)?;
    let limit = page.limit()?;
    let before = page.after::<(i64, Uuid)>()?.unwrap_or((i64::MAX, Uuid::max()));
    state.require_exists(org).await?;
    let rows = api_keys::list(state.pool(), org, before, row_limit(limit)).await?;
    Ok(Json(Page::of(rows, limit, |row| (row.created_at, row.id))?.map(ApiKeyResponse::from)))
}

/// Revoke an API key.
///
/// Revokes a key permanently. The gateway may accept it for up to 5 more seconds. Revoking a revoked key changes
/// nothing. The key's role must be at most the caller's own. Requires the role `admin`.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/api-keys/{key}", tag = "api-keys", params(ApiKeyPath),
    responses(
        (status = 204, description = "The key is revoked."),
        AdminProblems,
    )
)]
pub(super) async fn revoke_api_key(
    State(state): State<HttpState>,
    ApiPath(ApiKeyPath { org, key: id }): ApiPath<ApiKeyPath>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    require(&caller, org, Role::Admin)?;
    let key = api_keys::find(state.pool(), org, id).await?;
    let key = key.ok_or_else(|| does_not_exist("API key", id))?;
    require_authority(key.role, MemberRole::authority_of(caller.role))?;
    api_keys::revoke(state.pool(), org, id, Timestamp::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
