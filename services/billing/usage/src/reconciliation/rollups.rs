//! Comparison of the rollups with billing's copy of the events.

use std::collections::BTreeMap;

use epoch::Timestamp;
use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    queries::snapshot::BEGIN_SNAPSHOT,
    read_error::ReadError,
    reconciliation::{
        difference::{Areas, MAX_DIFFERENCES, Side, record_differences, report},
        recompute,
        step::INTERVAL,
    },
};

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupStep {
    /// The organization, or `None` at the end of a round, which compares machine types.
    pub organization: Option<Uuid>,
    /// The number of rows compared.
    pub rows: usize,
    /// The number of rows that differ.
    pub differences: usize,
}

/// Takes steps until `stop` is cancelled.
///
/// # Errors
/// [`ReadError`], to be restarted by the caller.
pub async fn run(pool: PgPool, stop: CancellationToken) -> Result<(), ReadError> {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let result = match check_next(&pool).await {
            Ok(Some(checked)) if checked.differences == 0 => "equal",
            Ok(Some(_)) => "different",
            Ok(None) => "elsewhere",
            // The next round takes other days of the organization.
            Err(ReadError::LimitExceeded { .. }) => "too_much",
            Err(error) => return Err(error),
        };
        metrics::counter!("billing_reconciliation_checks_total", "side" => "sums", "result" => result).increment(1);
        report(&pool, Side::Sums).await?;
    }
    Ok(())
}

/// The organization after an id, among those with usage.
const NEXT: &str = include_str!("rollups/next_organization.sql");

/// Takes one step; `None` if another process is taking one.
///
/// # Errors
/// [`ReadError`].
pub async fn check_next(pool: &PgPool) -> Result<Option<RollupStep>, ReadError> {
    let mut turn = epoch_postgres::begin(pool, "begin").await?;
    let state = sqlx::query("select round, organization from reconciliation_state for update skip locked");
    let Some(state) = state.fetch_optional(&mut *turn).await? else { return Ok(None) };
    let (round, last): (i64, Option<Uuid>) = (state.try_get("round")?, state.try_get("organization")?);
    let next: Option<Uuid> = sqlx::query_scalar(NEXT).bind(last.unwrap_or_default()).fetch_one(&mut *turn).await?;
    let now = Timestamp::now().as_millis();
    // A failed step counts as taken. Otherwise one organization would hold up all others.
    let compared = match next {
        Some(organization) => compare(pool, organization, round).await,
        None => compare_machine_types(pool).await,
    };
    let rows = compared.as_ref().map_or(0, |areas| areas.values().map(BTreeMap::len).sum());
    sqlx::query(include_str!("rollups/record_step.sql"))
        .bind(next)
        .bind(i64::try_from(rows).unwrap_or(i64::MAX))
        .bind(now)
        .execute(&mut *turn)
        .await?;
    let differences = match &compared {
        Ok(areas) => record_differences(&mut turn, Side::Sums, |_| next.unwrap_or_default(), areas, now).await?,
        Err(_) => 0,
    };
    turn.commit().await?;
    compared?;
    Ok(Some(RollupStep { organization: next, rows, differences }))
}

/// Compares all machine types, which belong to no organization.
async fn compare_machine_types(pool: &PgPool) -> Result<Areas, ReadError> {
    let mut tx = epoch_postgres::begin(pool, BEGIN_SNAPSHOT).await?;
    let comparisons = recompute::machine_types(&mut tx).await?;
    tx.commit().await?;
    Ok(Areas::from([(recompute::MACHINE_TYPES.to_owned(), comparisons)]))
}

/// Compares a sample of an organization's rows, and rows with known differences.
async fn compare(pool: &PgPool, organization: Uuid, round: i64) -> Result<Areas, ReadError> {
    let mut tx = epoch_postgres::begin(pool, BEGIN_SNAPSHOT).await?;
    let query = "select distinct area from reconciliation_differences \
         where side = 'sums' and organization_id = $1 order by area limit $2";
    let limit = i64::try_from(MAX_DIFFERENCES).unwrap_or(i64::MAX);
    let wrong: Vec<String> = sqlx::query_scalar(query).bind(organization).bind(limit).fetch_all(&mut *tx).await?;
    let mut areas = Areas::new();
    areas.insert(recompute::WIDTHS.to_owned(), recompute::widths(&mut tx, organization).await?);
    for bucket in recompute::buckets(&mut tx, organization, round, &wrong).await? {
        areas.insert(recompute::area_of_days(bucket), recompute::days(&mut tx, organization, bucket).await?);
    }
    areas.extend(recompute::files(&mut tx, organization, round, &wrong).await?);
    areas.extend(recompute::jobs(&mut tx, organization, round, &wrong).await?);
    tx.commit().await?;
    Ok(areas)
}
