//! `/api/v1/organizations`

use axum::{Json, extract::State, http::header};
use epoch::{Timestamp, Version};
use http_kit::{
    ApiPath, ApiQuery, Caller, Command, CommandResponse, Page, PageQuery, Problem, Role,
    command_response::etag,
    min_version::MinVersion,
    parameters::{IdempotencyKey, IfMatch, OptionalIdempotencyKey, OrganizationPath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    access::require,
    problem::{AdminProblems, JsonCommandProblems, ReadProblems, organization_not_found},
    state::HttpState,
    validation::{parse_name, parse_person},
};
use crate::{
    domain::{MemberRole, OrganizationCommand},
    queries::organizations::{self, MemberRow, OrganizationRow},
};

/// Request to create an organization.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateOrganizationRequest {
    /// Display name, 1 to 200 characters.
    #[schema(example = "Acme")]
    name: String,
    /// First member, with the role `owner`.
    owner: OwnerRequest,
}

/// First owner of an organization. An e-mail address that is already registered refers to the existing user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerRequest {
    /// E-mail address; upper and lower case are the same address.
    #[schema(example = "ada@example.org")]
    email: String,
    /// Name of the person, 1 to 200 characters. An existing user keeps the registered name.
    #[schema(example = "Ada Lovelace")]
    name: String,
}

/// Request to rename an organization.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameOrganizationRequest {
    /// New display name, 1 to 200 characters.
    #[schema(example = "Acme & Daughters")]
    name: String,
}

/// Organization without its members.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrganizationSummaryResponse {
    /// Organization id.
    id: Uuid,
    /// Display name.
    #[schema(example = "Acme")]
    name: String,
    /// Stored bytes of all files, including unfinished uploads.
    #[schema(example = 1_048_576)]
    storage_bytes: i64,
    /// Time of creation (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
    /// Version of the organization; also the `ETag` of a read.
    #[schema(example = 7)]
    version: i64,
}

/// Organization with its members.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrganizationResponse {
    #[serde(flatten)]
    summary: OrganizationSummaryResponse,
    /// Members, ordered by user id.
    members: Vec<MemberResponse>,
}

/// Member of an organization.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MemberResponse {
    user_id: Uuid,
    /// E-mail address, as first registered.
    #[schema(example = "ada@example.org")]
    email: String,
    /// Name of the person.
    #[schema(example = "Ada Lovelace")]
    name: String,
    /// Role in the organization.
    role: MemberRole,
}

impl From<OrganizationRow> for OrganizationSummaryResponse {
    fn from(row: OrganizationRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            storage_bytes: row.storage_bytes,
            created_at: Timestamp::from_millis(row.created_at).to_string(),
            version: row.version,
        }
    }
}

impl From<MemberRow> for MemberResponse {
    fn from(row: MemberRow) -> Self {
        Self { user_id: row.user_id, email: row.email, name: row.name, role: row.role }
    }
}

/// Create an organization.
///
/// Creates an organization with its first owner. The owner is registered as a user if the e-mail address is new.
/// Requires the operator's key.
#[utoipa::path(
    post, path = "/api/v1/organizations", tag = "organizations",
    params(IdempotencyKey), request_body = CreateOrganizationRequest,
    responses(
        (status = 201, description = "The organization was created.", body = CommandResponse, headers(
            ("Location" = String, description = "Path of the organization."),
            ("ETag" = String, description = "Version of the organization."),
        )),
        (status = 401, description = "The request has no valid API key.",
            body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The caller is not the operator.",
            body = Problem, content_type = "application/problem+json"),
        JsonCommandProblems,
    )
)]
pub(super) async fn create_organization(
    State(state): State<HttpState>,
    command: Command<CreateOrganizationRequest>,
) -> Result<CommandResponse, Problem> {
    command.caller.at_least(Role::Operator)?;
    let name = parse_name(&command.body.name, "/name")?;
    let owner = parse_person(&command.body.owner.email, &command.body.owner.name, "/owner")?;
    let id = Uuid::now_v7();
    let create = move |owner| OrganizationCommand::Create { name: name.clone(), owner };
    let (_, executed) = state.execute_for_person(id, owner, command.context.for_tenant(id), create).await?;
    Ok(CommandResponse::created(&executed, |id| format!("/api/v1/organizations/{id}")))
}

/// List organizations.
///
/// Returns organizations, newest first. The operator sees all of them, every other caller only the own one.
#[utoipa::path(
    get, path = "/api/v1/organizations", tag = "organizations", params(PageQuery),
    responses(
        (status = 200, description = "One page of organizations.", body = Page<OrganizationSummaryResponse>),
        (status = 400, description = "`limit` or `cursor` is invalid.",
            body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The request has no valid API key.",
            body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_organizations(
    State(state): State<HttpState>,
    caller: Caller,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<OrganizationSummaryResponse>>, Problem> {
    let pool = state.pool();
    let fetch = async |before: Option<Uuid>, limit| {
        let before = before.unwrap_or(Uuid::max());
        match caller.organization {
            _ if caller.role >= Role::Operator => organizations::list_all(pool, before, limit).await,
            Some(own) => organizations::list_one(pool, own, before, limit).await,
            None => Ok(Vec::new()),
        }
    };
    let page = Page::fetch(&query, |row: &OrganizationRow| row.id, fetch).await?;
    Ok(Json(page.map(OrganizationSummaryResponse::from)))
}

/// Get an organization.
///
/// Returns an organization and its members. Requires the role `viewer`.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}", tag = "organizations", params(OrganizationPath, MinVersion),
    responses(
        (status = 200, description = "The organization.", body = OrganizationResponse, headers(
            ("ETag" = String, description = "Version of the organization, for `If-Match`."),
        )),
        (status = 503, description = "The read model has not reached `min_version` yet.",
            body = Problem, content_type = "application/problem+json", headers(
            ("Retry-After" = u64, description = "Seconds to wait before the next attempt."),
        )),
        ReadProblems,
    )
)]
pub(super) async fn get_organization(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<([(header::HeaderName, String); 1], Json<OrganizationResponse>), Problem> {
    require(&caller, org, Role::Viewer)?;
    state.wait_for_version(org, min).await?;
    let found = organizations::find(state.pool(), org).await?;
    let (organization, members) = found.ok_or_else(|| organization_not_found(org))?;
    let version = Version::new(u64::try_from(organization.version).map_err(Problem::internal)?);
    let response = OrganizationResponse {
        summary: organization.into(),
        members: members.into_iter().map(MemberResponse::from).collect(),
    };
    Ok(([(header::ETAG, etag(version))], Json(response)))
}

/// Rename an organization.
///
/// Changes the display name. The present name is accepted and changes nothing. Requires the role `owner`.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{org}", tag = "organizations",
    params(OrganizationPath, IfMatch, OptionalIdempotencyKey), request_body = RenameOrganizationRequest,
    responses(
        (status = 200, description = "The organization has the name.", body = CommandResponse, headers(
            ("ETag" = String, description = "Version of the organization."),
        )),
        (status = 409, description = "Concurrent changes of the organization exceeded the attempts.",
            body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The organization is not at the version of `If-Match`.",
            body = Problem, content_type = "application/problem+json"),
        AdminProblems, JsonCommandProblems,
    )
)]
pub(super) async fn rename_organization(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<RenameOrganizationRequest>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Owner)?;
    let rename = OrganizationCommand::Rename { name: parse_name(&command.body.name, "/name")? };
    let context = command.context.for_tenant(org);
    Ok(state.organizations.execute(org, &rename, &context).await?.into())
}
