//! Queries on the read model `organizations`.

use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::domain::MemberRole;

const FIND: &str = include_str!("find_organization.sql");

const LIST_ALL: &str = "select id, name, storage_bytes, created_at, version from organizations \
     where id < $1 order by id desc limit $2";

const LIST_ONE: &str = "select id, name, storage_bytes, created_at, version from organizations \
     where id < $1 and id = $3 limit $2";

#[derive(Debug, FromRow)]
pub(crate) struct OrganizationRow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) storage_bytes: i64,
    /// UTC milliseconds.
    pub(crate) created_at: i64,
    pub(crate) version: i64,
}

#[derive(Debug)]
pub(crate) struct MemberRow {
    pub(crate) user_id: Uuid,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) role: MemberRole,
}

/// Row of `find_organization.sql`.
#[derive(FromRow)]
struct OrganizationMemberRow {
    #[sqlx(flatten)]
    organization: OrganizationRow,
    user_id: Option<Uuid>,
    role: Option<String>,
    email: Option<String>,
    user_name: Option<String>,
}

impl OrganizationMemberRow {
    /// Splits the row. The member is `None` for an organization without members.
    fn into_parts(self) -> Result<(OrganizationRow, Option<MemberRow>), sqlx::Error> {
        let (Some(user_id), Some(role), Some(email), Some(name)) =
            (self.user_id, self.role, self.email, self.user_name)
        else {
            return Ok((self.organization, None));
        };
        let role = MemberRole::try_from(role).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok((self.organization, Some(MemberRow { user_id, email, name, role })))
    }
}

/// Returns an organization and its members, ordered by user id.
pub(crate) async fn find(
    pool: &PgPool,
    organization: Uuid,
) -> Result<Option<(OrganizationRow, Vec<MemberRow>)>, sqlx::Error> {
    let rows: Vec<OrganizationMemberRow> = sqlx::query_as(FIND).bind(organization).fetch_all(pool).await?;
    let (mut found, mut members) = (None, Vec::new());
    for row in rows {
        let (organization, member) = row.into_parts()?;
        found = Some(organization);
        members.extend(member);
    }
    Ok(found.map(|organization| (organization, members)))
}

/// Returns up to `limit` organizations with ids below `before`, newest first.
pub(crate) async fn list_all(pool: &PgPool, before: Uuid, limit: i64) -> Result<Vec<OrganizationRow>, sqlx::Error> {
    sqlx::query_as(LIST_ALL).bind(before).bind(limit).fetch_all(pool).await
}

/// Returns `organization` alone, if its id is below `before`.
pub(crate) async fn list_one(
    pool: &PgPool,
    organization: Uuid,
    before: Uuid,
    limit: i64,
) -> Result<Vec<OrganizationRow>, sqlx::Error> {
    sqlx::query_as(LIST_ONE).bind(before).bind(limit).bind(organization).fetch_all(pool).await
}
