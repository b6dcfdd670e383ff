//! The table `api_keys`.
//!
//! The table stores the SHA-256 of a key, never its text. The organization, role and user of a key never change, and a
//! revoked key stays revoked; the gateway may therefore cache a valid key for a few seconds.

use epoch::Timestamp;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::domain::{MemberRole, Name};

const INSERT: &str = "insert into api_keys \
     (id, organization_id, user_id, name, role, sha256, fingerprint, created_at) \
     values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do nothing";

const FIND: &str = "select id, user_id, name, role, fingerprint, created_at, revoked_at from api_keys \
     where organization_id = $1 and id = $2";

const LIST: &str = "select id, user_id, name, role, fingerprint, created_at, revoked_at from api_keys \
     where organization_id = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4";

const REVOKE: &str =
    "update api_keys set revoked_at = $3 where organization_id = $1 and id = $2 and revoked_at is null";

const REVOKE_OF_USER: &str =
    "update api_keys set revoked_at = $3 where organization_id = $1 and user_id = $2 and revoked_at is null";

const FIND_VALID_BY_DIGEST: &str =
    "select id, organization_id, user_id, role from api_keys where sha256 = $1 and revoked_at is null";

#[derive(Debug)]
pub(crate) struct NewApiKey<'a> {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) name: &'a Name,
    pub(crate) role: MemberRole,
    pub(crate) sha256: [u8; 32],
    /// Fingerprint of the creating request.
    pub(crate) fingerprint: &'a [u8],
    pub(crate) created_at: Timestamp,
}

/// Row of a key without its digest.
#[derive(Debug, FromRow)]
pub(crate) struct ApiKeyRow {
    pub(crate) id: Uuid,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) name: String,
    #[sqlx(try_from = "String")]
    pub(crate) role: MemberRole,
    pub(crate) fingerprint: Vec<u8>,
    /// UTC milliseconds.
    pub(crate) created_at: i64,
    /// UTC milliseconds.
    pub(crate) revoked_at: Option<i64>,
}

/// Identity of a valid key.
#[derive(Debug, FromRow)]
pub(crate) struct KeyIdentity {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) user_id: Option<Uuid>,
    #[sqlx(try_from = "String")]
    pub(crate) role: MemberRole,
}

/// Inserts a key, unless a key with its id exists.
pub(crate) async fn insert(pool: &PgPool, key: &NewApiKey<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT)
        .bind(key.id)
        .bind(key.organization_id)
        .bind(key.user_id)
        .bind(key.name.as_str())
        .bind(key.role.as_str())
        .bind(key.sha256)
        .bind(key.fingerprint)
        .bind(key.created_at.as_millis())
        .execute(pool)
        .await?;
    Ok(())
}

/// Returns a key of the organization, valid or revoked.
pub(crate) async fn find(pool: &PgPool, organization: Uuid, id: Uuid) -> Result<Option<ApiKeyRow>, sqlx::Error> {
    sqlx::query_as(FIND).bind(organization).bind(id).fetch_optional(pool).await
}

/// Returns up to `limit` keys older than the given creation time and id, newest first.
pub(crate) async fn list(
    pool: &PgPool,
    organization: Uuid,
    (created_at, id): (i64, Uuid),
    limit: i64,
) -> Result<Vec<ApiKeyRow>, sqlx::Error> {
    sqlx::query_as(LIST).bind(organization).bind(created_at).bind(id).bind(limit).fetch_all(pool).await
}

/// Revokes a key. A revoked key keeps its time of revocation.
pub(crate) async fn revoke(pool: &PgPool, organization: Uuid, id: Uuid, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(REVOKE).bind(organization).bind(id).bind(now.as_millis()).execute(pool).await?;
    Ok(())
}

/// Revokes all valid keys that act for the user in the organization.
pub(crate) async fn revoke_of_user(
    connection: &mut PgConnection,
    organization: Uuid,
    user: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(REVOKE_OF_USER).bind(organization).bind(user).bind(now.as_millis()).execute(connection).await?;
    Ok(())
}

/// Returns the valid key with this SHA-256.
pub(crate) async fn find_valid_by_digest(pool: &PgPool, sha256: &[u8; 32]) -> Result<Option<KeyIdentity>, sqlx::Error> {
    sqlx::query_as(FIND_VALID_BY_DIGEST).bind(sha256).fetch_optional(pool).await
}
