//! Where the comparison is, and what it found.
//!
//! The problem: several processes compare, and a step takes as long as the owner takes to answer.
//!
//! The invariant: a step is claimed for a time, in one statement; what it found counts only if the claim still stands when it ends.

use std::{collections::BTreeMap, time::Duration};

use contracts::file;
use epoch::Timestamp;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{
    read_error::ReadError,
    reconciliation::{
        copy::stream::OwnerError,
        difference::{Areas, Side, millis, note},
    },
};

/// Where a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// How often all of the owner's streams have been walked.
    pub(super) round: i64,
    /// The last of them that was looked at in this round.
    pub(super) listed: Option<Uuid>,
    /// The last organization that a sample was taken of.
    pub(super) organization: Option<Uuid>,
}

/// What a step looked at.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) areas: Areas,
    /// Whose each area is.
    pub(super) organizations: BTreeMap<String, Uuid>,
    pub(super) skipped: i64,
    /// Where to go on.
    pub(super) next: Place,
    /// The last of the sample's streams, of the organization in `next`; `None` when it was the last of them.
    pub(super) sampled: Option<Uuid>,
}

/// What areas' names say about which file or job they are.
pub(super) fn of_area(aggregate: &str, area: &str) -> Option<Uuid> {
    area.strip_prefix("copy of ")?.strip_prefix(aggregate)?.trim_start().parse().ok()
}

/// Claims the next step; `None` when another process has it.
pub(super) async fn claim(
    pool: &PgPool,
    aggregate: &str,
    now: Timestamp,
    limit: Duration,
) -> Result<Option<(i64, Place)>, ReadError> {
    let now = now.as_millis();
    let until = now.saturating_add(millis(limit));
    let update = "update reconciliation_copies set busy_until = greatest($2, busy_until + 1), \
             round_began_at = coalesce(round_began_at, $3) \
         where aggregate = $1 and busy_until <= $3 returning busy_until, round, listed, organization";
    let row = sqlx::query(update).bind(aggregate).bind(until).bind(now).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    let place = Place { round: row.try_get(1)?, listed: row.try_get(2)?, organization: row.try_get(3)? };
    Ok(Some((row.try_get(0)?, place)))
}

/// Gives a claim back.
pub(super) async fn release(pool: &PgPool, aggregate: &str, claim: i64) -> Result<(), ReadError> {
    let update = "update reconciliation_copies set busy_until = 0 where aggregate = $1 and busy_until = $2";
    sqlx::query(update).bind(aggregate).bind(claim).execute(pool).await?;
    Ok(())
}

/// The step is given up since the owner can't be had; the next one is the same.
pub(super) async fn unreachable(
    pool: &PgPool,
    aggregate: &str,
    claim: i64,
    error: &OwnerError,
    now: Timestamp,
) -> Result<(), ReadError> {
    let update = "update reconciliation_copies set busy_until = 0, unreachable = unreachable + 1, \
             unreachable_since = coalesce(unreachable_since, $3), unreachable_why = $4 \
         where aggregate = $1 and busy_until = $2";
    let query = sqlx::query(update).bind(aggregate).bind(claim).bind(now.as_millis());
    query.bind(error.to_string()).execute(pool).await?;
    Ok(())
}

/// Notes what a step found and where the next one begins. How many rows differ; `None` when the claim no longer stands.
pub(super) async fn looked(
    pool: &PgPool,
    aggregate: &str,
    claim: i64,
    looked: &Looked,
    now: Timestamp,
) -> Result<Option<usize>, ReadError> {
    let rows: usize = looked.areas.values().map(std::collections::BTreeMap::len).sum();
    let mut tx = epoch_postgres::begin(pool, "begin").await?;
    let update = "update reconciliation_copies set busy_until = 0, checks = checks + 1, \
             rows_compared = rows_compared + $3, skipped = skipped + $4, last_check_at = $5, \
             round_began_at = case when round = $6 then round_began_at else $5 end, \
             round = $6, listed = $7, organization = $8, unreachable_since = null, unreachable_why = null \
         where aggregate = $1 and busy_until = $2";
    let updated = sqlx::query(update)
        .bind(aggregate)
        .bind(claim)
        .bind(i64::try_from(rows).unwrap_or(i64::MAX))
        .bind(looked.skipped)
        .bind(now.as_millis())
        .bind(looked.next.round)
        .bind(looked.next.listed)
        .bind(looked.next.organization)
        .execute(&mut *tx)
        .await?;
    if updated.rows_affected() == 0 {
        return Ok(None);
    }
    if let Some(organization) = looked.next.organization {
        let upsert = "insert into reconciliation_places (organization_id, aggregate, after) values ($1, $2, $3) \
             on conflict (organization_id, aggregate) do update set after = excluded.after";
        let query = sqlx::query(upsert).bind(organization).bind(aggregate).bind(looked.sampled.unwrap_or_default());
        query.execute(&mut *tx).await?;
    }
    let of = |area: &str| looked.organizations.get(area).copied().unwrap_or_default();
    let differences = note(&mut tx, Side::Copy, of, &looked.areas, now.as_millis()).await?;
    tx.commit().await?;
    Ok(Some(differences))
}

/// The files or jobs that were found to be wrong, those first that were looked at least lately.
pub(super) async fn wrong(pool: &PgPool, aggregate: &str, most: usize) -> Result<Vec<Uuid>, ReadError> {
    let query = "select area from reconciliation_differences where side = 'copy' and area like $1 \
         group by area order by min(seen_at) limit $2";
    let query = sqlx::query_scalar(query).bind(format!("copy of {aggregate} %"));
    let areas: Vec<String> = query.bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_all(pool).await?;
    Ok(areas.iter().filter_map(|area| of_area(aggregate, area)).collect())
}

const NEXT_OF_FILES: &str =
    "select organization_id from storage_changes where organization_id > $1 order by organization_id limit 1";

const NEXT_OF_JOBS: &str = "select min(organization_id::text)::uuid from ( \
         (select organization_id from metered_jobs where organization_id > $1 order by organization_id limit 1) \
         union all \
         (select organization_id from job_moments where organization_id > $1 order by organization_id limit 1) \
         union all \
         (select organization_id from file_link_changes where organization_id > $1 order by organization_id limit 1) \
     ) following";

/// The organization after one, among those of which there is a copy of something; after the last one the first; `None` when there is
/// none at all.
pub(super) async fn next_organization(
    pool: &PgPool,
    aggregate: &str,
    last: Option<Uuid>,
) -> Result<Option<Uuid>, ReadError> {
    let query = if aggregate == file::AGGREGATE { NEXT_OF_FILES } else { NEXT_OF_JOBS };
    for after in [last.unwrap_or_default(), Uuid::nil()] {
        let next: Option<Option<Uuid>> = sqlx::query_scalar(query).bind(after).fetch_optional(pool).await?;
        if let Some(Some(next)) = next {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

const FILES: &str = "select distinct file_id from storage_changes \
     where organization_id = $1 and file_id > $2 order by file_id limit $3";

const JOBS: &str = "select job_id from ( \
         (select job_id from metered_jobs where organization_id = $1 and job_id > $2 order by job_id limit $3) \
         union \
         (select distinct job_id from job_moments where organization_id = $1 and job_id > $2 order by job_id limit $3) \
         union \
         (select distinct job_id from file_link_changes where organization_id = $1 and job_id > $2 order by job_id limit $3) \
     ) jobs order by job_id limit $3";

/// The next files or jobs of an organization, as billing has them.
pub(super) async fn sample(
    pool: &PgPool,
    aggregate: &str,
    organization: Uuid,
    most: usize,
) -> Result<Vec<Uuid>, ReadError> {
    let query = "select after from reconciliation_places where organization_id = $1 and aggregate = $2";
    let after: Option<Uuid> = sqlx::query_scalar(query).bind(organization).bind(aggregate).fetch_optional(pool).await?;
    let query = if aggregate == file::AGGREGATE { FILES } else { JOBS };
    let query = sqlx::query_scalar(query).bind(organization).bind(after.unwrap_or_default());
    Ok(query.bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_all(pool).await?)
}
