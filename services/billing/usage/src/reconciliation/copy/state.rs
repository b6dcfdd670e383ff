//! The progress and the findings of the comparison.
//!
//! Several processes compare, and a step takes as long as the owner takes to answer. Invariant: one statement
//! claims a step for a limited time, and its findings count only if the claim is still valid at the end.

use std::{collections::BTreeMap, time::Duration};

use contracts::file;
use epoch::Timestamp;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{
    read_error::ReadError,
    reconciliation::{
        copy::stream::OwnerError,
        difference::{Areas, Side, millis, record_differences},
    },
};

/// The position at which a step starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StepCursor {
    /// The number of completed passes over the owner's streams.
    pub(super) round: i64,
    /// The last stream compared in this round.
    pub(super) listed: Option<Uuid>,
    /// The last organization sampled.
    pub(super) organization: Option<Uuid>,
}

/// The findings of a step.
#[derive(Default)]
pub(super) struct StepFindings {
    pub(super) areas: Areas,
    /// The organization of each area.
    pub(super) organizations: BTreeMap<String, Uuid>,
    pub(super) skipped: i64,
    /// The position of the next step.
    pub(super) next: StepCursor,
    /// The last stream of the sample in the organization of `next`; `None` at the end of the organization.
    pub(super) sampled: Option<Uuid>,
}

/// Parses the id of the file or job from the name of an area.
pub(super) fn of_area(aggregate: &str, area: &str) -> Option<Uuid> {
    area.strip_prefix("copy of ")?.strip_prefix(aggregate)?.trim_start().parse().ok()
}

/// Claims the next step; `None` if another process holds it.
pub(super) async fn claim(
    pool: &PgPool,
    aggregate: &str,
    now: Timestamp,
    limit: Duration,
) -> Result<Option<(i64, StepCursor)>, ReadError> {
    let now = now.as_millis();
    let until = now.saturating_add(millis(limit));
    let update = include_str!("claim_step.sql");
    let row = sqlx::query(update).bind(aggregate).bind(until).bind(now).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    let place = StepCursor {
        round: row.try_get("round")?,
        listed: row.try_get("listed")?,
        organization: row.try_get("organization")?,
    };
    Ok(Some((row.try_get("busy_until")?, place)))
}

/// Releases a claim.
pub(super) async fn release(pool: &PgPool, aggregate: &str, claim: i64) -> Result<(), ReadError> {
    let update = "update reconciliation_copies set busy_until = 0 where aggregate = $1 and busy_until = $2";
    sqlx::query(update).bind(aggregate).bind(claim).execute(pool).await?;
    Ok(())
}

/// Records that the owner failed to answer, and releases the claim; the next step repeats this one.
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

/// Records the findings and the position of the next step. Returns the number of differing rows, or `None` if
/// the claim expired.
pub(super) async fn record_findings(
    pool: &PgPool,
    aggregate: &str,
    claim: i64,
    findings: &StepFindings,
    now: Timestamp,
) -> Result<Option<usize>, ReadError> {
    let rows: usize = findings.areas.values().map(BTreeMap::len).sum();
    let mut tx = epoch_postgres::begin(pool, "begin").await?;
    let update = include_str!("record_step.sql");
    let updated = sqlx::query(update)
        .bind(aggregate)
        .bind(claim)
        .bind(i64::try_from(rows).unwrap_or(i64::MAX))
        .bind(findings.skipped)
        .bind(now.as_millis())
        .bind(findings.next.round)
        .bind(findings.next.listed)
        .bind(findings.next.organization)
        .execute(&mut *tx)
        .await?;
    if updated.rows_affected() == 0 {
        return Ok(None);
    }
    if let Some(organization) = findings.next.organization {
        let upsert = "insert into reconciliation_places (organization_id, aggregate, after) values ($1, $2, $3) \
             on conflict (organization_id, aggregate) do update set after = excluded.after";
        let query = sqlx::query(upsert).bind(organization).bind(aggregate).bind(findings.sampled.unwrap_or_default());
        query.execute(&mut *tx).await?;
    }
    let of = |area: &str| findings.organizations.get(area).copied().unwrap_or_default();
    let differences = record_differences(&mut tx, Side::Copy, of, &findings.areas, now.as_millis()).await?;
    tx.commit().await?;
    Ok(Some(differences))
}

/// Lists files or jobs with known differences, starting with those checked least recently.
pub(super) async fn known_differences(pool: &PgPool, aggregate: &str, limit: usize) -> Result<Vec<Uuid>, ReadError> {
    let query = "select area from reconciliation_differences where side = 'copy' and area like $1 \
         group by area order by min(seen_at) limit $2";
    let query = sqlx::query_scalar(query).bind(format!("copy of {aggregate} %"));
    let areas: Vec<String> = query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(pool).await?;
    Ok(areas.iter().filter_map(|area| of_area(aggregate, area)).collect())
}

const NEXT_OF_FILES: &str =
    "select organization_id from storage_changes where organization_id > $1 order by organization_id limit 1";

const NEXT_OF_JOBS: &str = include_str!("next_organization_of_jobs.sql");

/// Returns the next organization with copied rows, starting over after the last one; `None` without rows.
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

const JOBS: &str = include_str!("jobs_of_organization.sql");

/// Lists the next files or jobs of an organization in billing's copy.
pub(super) async fn sample(
    pool: &PgPool,
    aggregate: &str,
    organization: Uuid,
    limit: usize,
) -> Result<Vec<Uuid>, ReadError> {
    let query = "select after from reconciliation_places where organization_id = $1 and aggregate = $2";
    let after: Option<Uuid> = sqlx::query_scalar(query).bind(organization).bind(aggregate).fetch_optional(pool).await?;
    let query = if aggregate == file::AGGREGATE { FILES } else { JOBS };
    let query = sqlx::query_scalar(query).bind(organization).bind(after.unwrap_or_default());
    Ok(query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(pool).await?)
}
