//! `/api/v1/organizations/{organization}/api-keys`
//!
//! The problem: a key is shown once, and the answer that shows it may be lost on its way.
//!
//! The invariant: a key's id is the id of the command that makes it, and its text follows from the id. The same request again
//! shows the same key; another one under the same `Idempotency-Key` is refused.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::{ExecuteError, Timestamp};
use serde::{Deserialize, Serialize};
use service_kit::{ApiPath, ApiQuery, Caller, Command, Page, PageQuery, Problem, Role, api_key::ApiKey};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    organizations::fetched,
    require,
    validation::{name, require_authority},
};
use crate::{
    domain::{MemberRole, OrganizationError},
    tables::api_keys::{self, ApiKeyRow, NewApiKey},
};

/// A key to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiKey {
    /// What it is for: 1 to 200 characters.
    name: String,
    /// What it may do; not above the caller's own role.
    #[serde(default = "default_role")]
    #[schema(default = "member")]
    role: MemberRole,
}

fn default_role() -> MemberRole {
    MemberRole::Member
}

/// A key that was made. This is the only answer that shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKeyCreated {
    /// Names it; not secret.
    id: Uuid,
    /// The key in full.
    key: String,
    /// What it is for.
    name: String,
    /// What it may do.
    role: MemberRole,
    /// When it was made (RFC 3339, UTC).
    created_at: String,
}

/// A key in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeyView {
    /// Names it.
    id: Uuid,
    /// What it is for.
    name: String,
    /// What it may do.
    role: MemberRole,
    /// Whom it acts for; null when no person made it.
    user_id: Option<Uuid>,
    /// When it was made (RFC 3339, UTC).
    created_at: String,
    /// When it was revoked; null while it is valid.
    revoked_at: Option<String>,
}

impl From<ApiKeyRow> for ApiKeyView {
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

/// Makes a key. For admins.
#[utoipa::path(
    post, path = "/api/v1/organizations/{organization}/api-keys", tag = "api-keys", operation_id = "createApiKey",
    params(("organization" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = CreateApiKey,
    responses((status = 201, body = ApiKeyCreated), (status = 403, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn create(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<CreateApiKey>,
) -> Result<Response, Problem> {
    require(&command.caller, organization, Role::Admin)?;
    let role = command.body.role;
    require_authority(role, MemberRole::authority_of(command.caller.role))?;
    let name = name(&command.body.name, "/name")?;
    api.require_exists(organization).await?;

    let id = command.context.command_id;
    let fingerprint = command.context.idempotency.map(|request| request.fingerprint).unwrap_or_default();
    let key = ApiKey::issue(id, &api.secrets);
    let new = NewApiKey {
        id,
        organization_id: organization,
        user_id: acts_for(&command.caller),
        name: &name,
        role,
        sha256: key.digest(),
        fingerprint: &fingerprint,
        created_at: command.context.occurred_at,
    };
    api_keys::insert(api.pool(), &new).await?;
    let stored = api_keys::find(api.pool(), organization, id).await?.filter(|row| row.fingerprint == fingerprint);
    let Some(stored) = stored else {
        return Err(ExecuteError::<OrganizationError>::CommandReused { command_id: id }.into());
    };
    let location = format!("/api/v1/organizations/{organization}/api-keys/{id}");
    let created = ApiKeyCreated {
        id,
        key: key.reveal(),
        name: stored.name,
        role: stored.role,
        created_at: Timestamp::from_millis(stored.created_at).to_string(),
    };
    // Nobody on the way may keep it.
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// A key acts for the person who made it, but never for somebody of the platform.
fn acts_for(caller: &Caller) -> Option<Uuid> {
    caller.user_id.filter(|_| caller.role < Role::Operator)
}

/// Lists keys, newest first, without their secrets. For admins.
#[utoipa::path(
    get, path = "/api/v1/organizations/{organization}/api-keys", tag = "api-keys", operation_id = "listApiKeys",
    params(("organization" = Uuid, Path), PageQuery), responses((status = 200, body = Page<ApiKeyView>))
)]
pub(crate) async fn list(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<ApiKeyView>>, Problem> {
    require(&caller, organization, Role::Admin)?;
    let limit = page.limit()?;
    let before = page.after::<(i64, Uuid)>()?.unwrap_or((i64::MAX, Uuid::max()));
    api.require_exists(organization).await?;
    let rows = api_keys::list(api.pool(), organization, before, fetched(limit)).await?;
    Ok(Json(Page::of(rows, limit, |row| (row.created_at, row.id))?.map(ApiKeyView::from)))
}

/// Revokes a key, at once and for good. For admins.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{organization}/api-keys/{key}", tag = "api-keys",
    operation_id = "revokeApiKey", params(("organization" = Uuid, Path), ("key" = Uuid, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn revoke(
    State(api): State<Api>,
    ApiPath((organization, id)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    require(&caller, organization, Role::Admin)?;
    let key = api_keys::find(api.pool(), organization, id).await?;
    let key = key.ok_or_else(|| Problem::not_found(format!("API key {id} does not exist")))?;
    require_authority(key.role, MemberRole::authority_of(caller.role))?;
    api_keys::revoke(api.pool(), organization, id, Timestamp::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
