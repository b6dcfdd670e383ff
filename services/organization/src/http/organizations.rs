//! `/api/v1/organizations`

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::header};
use epoch::{Timestamp, Version};
use serde::{Deserialize, Serialize};
use service_kit::{
    ApiPath, ApiQuery, Caller, Changed, Command, Page, PageQuery, Problem, Role, changed::etag, min_version::MinVersion,
};
use sqlx::{FromRow, PgPool, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api, require,
    validation::{does_not_exist, name, person},
};
use crate::domain::{MemberRole, OrganizationCommand};

/// One statement, so that the members are those of the version.
const READ: &str = "select o.id, o.name, o.storage_bytes, o.created_at, o.version, \
     m.user_id, m.role, u.email, u.name as user_name from organizations o \
     left join (members m join users u on u.id = m.user_id) on m.organization_id = o.id \
     where o.id = $1";

const LIST: &str = "select id, name, storage_bytes, created_at, version from organizations \
     where id < $1 order by id desc limit $2";

const LIST_OWN: &str = "select id, name, storage_bytes, created_at, version from organizations \
     where id < $1 and id = $3 limit $2";

/// An organization to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateOrganization {
    /// What people call it: 1 to 200 characters.
    name: String,
    /// Its first member.
    owner: Owner,
}

/// The first owner of an organization; an e-mail address that is known is the user it belongs to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    /// The e-mail address.
    email: String,
    /// The person's name: 1 to 200 characters.
    name: String,
}

/// What to change about an organization.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenameOrganization {
    /// The new name: 1 to 200 characters.
    name: String,
}

/// An organization in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrganizationSummary {
    /// Names it.
    id: Uuid,
    /// What people call it.
    name: String,
    /// What it stores, in bytes.
    storage_bytes: i64,
    /// When it was created (RFC 3339, UTC).
    created_at: String,
    /// Its version.
    version: i64,
}

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrganizationView {
    #[serde(flatten)]
    summary: OrganizationSummary,
    /// Its members, by user id.
    members: Vec<MemberView>,
}

/// A member of an organization.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberView {
    /// The user.
    user_id: Uuid,
    /// The e-mail address.
    email: String,
    /// The person's name.
    name: String,
    /// What the member may do.
    role: MemberRole,
}

#[derive(FromRow)]
struct OrganizationRow {
    id: Uuid,
    name: String,
    storage_bytes: i64,
    created_at: i64,
    version: i64,
}

impl From<OrganizationRow> for OrganizationSummary {
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

/// Creates an organization with its first owner. For operators.
#[utoipa::path(
    post, path = "/api/v1/organizations", tag = "organizations", operation_id = "createOrganization",
    params(("Idempotency-Key" = String, Header)), request_body = CreateOrganization,
    responses((status = 201, body = Changed), (status = 422, body = Problem))
)]
pub(crate) async fn create(State(api): State<Api>, command: Command<CreateOrganization>) -> Result<Changed, Problem> {
    command.caller.at_least(Role::Operator)?;
    let name = name(&command.body.name, "/name")?;
    let owner = person(&command.body.owner.email, &command.body.owner.name, "/owner")?;
    let id = Uuid::now_v7();
    let create = move |owner| OrganizationCommand::Create { name: name.clone(), owner };
    let (_, executed) = api.execute_for_person(id, owner, command.context.for_tenant(id), create).await?;
    Ok(Changed::created(&executed, |id| format!("/api/v1/organizations/{id}")))
}

/// Lists organizations, newest first: operators see all, others their own.
#[utoipa::path(
    get, path = "/api/v1/organizations", tag = "organizations", operation_id = "listOrganizations",
    params(PageQuery), responses((status = 200, body = Page<OrganizationSummary>))
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<OrganizationSummary>>, Problem> {
    let limit = page.limit()?;
    let before = page.after::<Uuid>()?.unwrap_or(Uuid::max());
    let rows = if caller.role >= Role::Operator {
        sqlx::query_as::<_, OrganizationRow>(LIST).bind(before).bind(fetched(limit)).fetch_all(api.pool()).await?
    } else if let Some(own) = caller.organization {
        sqlx::query_as(LIST_OWN).bind(before).bind(fetched(limit)).bind(own).fetch_all(api.pool()).await?
    } else {
        Vec::new()
    };
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(OrganizationSummary::from)))
}

/// One more than a page has, so that it is known whether there is a next one.
pub(super) fn fetched(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Shows an organization and its members.
#[utoipa::path(
    get, path = "/api/v1/organizations/{organization}", tag = "organizations", operation_id = "readOrganization",
    params(("organization" = Uuid, Path), MinVersion),
    responses((status = 200, body = OrganizationView), (status = 404, body = Problem), (status = 503, body = Problem))
)]
pub(crate) async fn read(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<([(header::HeaderName, String); 1], Json<OrganizationView>), Problem> {
    require(&caller, organization, Role::Viewer)?;
    api.wait_for(organization, min).await?;
    let view = find(api.pool(), organization).await?.ok_or_else(|| does_not_exist(organization))?;
    let version = Version::new(u64::try_from(view.summary.version).map_err(Problem::internal)?);
    Ok(([(header::ETAG, etag(version))], Json(view)))
}

async fn find(pool: &PgPool, organization: Uuid) -> Result<Option<OrganizationView>, sqlx::Error> {
    let rows = sqlx::query(READ).bind(organization).fetch_all(pool).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let summary = OrganizationRow::from_row(first)?.into();
    let mut members = BTreeMap::new();
    for row in &rows {
        let Some(user_id) = row.try_get::<Option<Uuid>, _>("user_id")? else { continue };
        let role = MemberRole::try_from(row.try_get::<String, _>("role")?);
        let role = role.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let member = MemberView { user_id, email: row.try_get("email")?, name: row.try_get("user_name")?, role };
        members.insert(user_id, member);
    }
    Ok(Some(OrganizationView { summary, members: members.into_values().collect() }))
}

/// Gives an organization another name. For its owners.
#[utoipa::path(
    patch, path = "/api/v1/organizations/{organization}", tag = "organizations", operation_id = "renameOrganization",
    params(("organization" = Uuid, Path), ("If-Match" = Option<String>, Header)), request_body = RenameOrganization,
    responses((status = 200, body = Changed), (status = 404, body = Problem), (status = 412, body = Problem))
)]
pub(crate) async fn rename(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<RenameOrganization>,
) -> Result<Changed, Problem> {
    require(&command.caller, organization, Role::Owner)?;
    let rename = OrganizationCommand::Rename { name: name(&command.body.name, "/name")? };
    let context = command.context.for_tenant(organization);
    Ok(api.organizations.execute(organization, &rename, &context).await?.into())
}
