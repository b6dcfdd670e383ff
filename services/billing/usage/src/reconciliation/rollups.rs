//! Comparison of the rollups with the events that they are made of.

use std::collections::BTreeMap;

use epoch::Timestamp;
use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    queries::snapshot::AT_ONE_MOMENT,
    read_error::ReadError,
    reconciliation::{
        difference::{Areas, MAX_FOUND, Side, note, report},
        recompute,
        step::INTERVAL,
    },
};

/// What one step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The organization; `None` at the end of a round, where the types of machines are looked at.
    pub organization: Option<Uuid>,
    /// How many rows were compared.
    pub rows: usize,
    /// How many of them differ.
    pub differences: usize,
}

/// Checks until it is told to stop.
///
/// # Errors
/// [`ReadError`], to be started again.
pub async fn run(pool: PgPool, stop: CancellationToken) -> Result<(), ReadError> {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let result = match check_next(&pool).await {
            Ok(Some(checked)) if checked.differences == 0 => "equal",
            Ok(Some(_)) => "different",
            Ok(None) => "elsewhere",
            // The next round takes other days of it.
            Err(ReadError::TooMuch { .. }) => "too_much",
            Err(error) => return Err(error),
        };
        metrics::counter!("billing_reconciliation_checks_total", "side" => "sums", "result" => result).increment(1);
        report(&pool, Side::Sums).await?;
    }
    Ok(())
}

/// The organization after one, among those that have something metered.
const NEXT: &str = "select min(organization_id::text)::uuid from ( \
         (select organization_id from metering_sums where organization_id > $1 order by organization_id limit 1) \
         union all \
         (select organization_id from storage_changes where organization_id > $1 order by organization_id limit 1) \
         union all \
         (select organization_id from runs where organization_id > $1 order by organization_id limit 1) \
     ) following";

/// Takes one step; `None` when another process is taking one.
///
/// # Errors
/// [`ReadError`].
pub async fn check_next(pool: &PgPool) -> Result<Option<Checked>, ReadError> {
    let mut turn = epoch_postgres::begin(pool, "begin").await?;
    let state = sqlx::query("select round, organization from reconciliation_state for update skip locked");
    let Some(state) = state.fetch_optional(&mut *turn).await? else { return Ok(None) };
    let (round, last): (i64, Option<Uuid>) = (state.try_get("round")?, state.try_get("organization")?);
    let next: Option<Uuid> = sqlx::query_scalar(NEXT).bind(last.unwrap_or_default()).fetch_one(&mut *turn).await?;
    let now = Timestamp::now().as_millis();
    // The step is taken also if it fails, or one organization would hold up all others.
    let compared = match next {
        Some(organization) => compare(pool, organization, round).await,
        None => compare_machine_types(pool).await,
    };
    let rows = compared.as_ref().map_or(0, |areas| areas.values().map(BTreeMap::len).sum());
    sqlx::query(
        "update reconciliation_state set organization = $1, checks = checks + 1, rows_compared = rows_compared + $2, \
             last_check_at = $3, round = round + case when $1 is null then 1 else 0 end, \
             round_began_at = case when $1 is null then $3 else coalesce(round_began_at, $3) end",
    )
    .bind(next)
    .bind(i64::try_from(rows).unwrap_or(i64::MAX))
    .bind(now)
    .execute(&mut *turn)
    .await?;
    let differences = match &compared {
        Ok(areas) => note(&mut turn, Side::Sums, |_| next.unwrap_or_default(), areas, now).await?,
        Err(_) => 0,
    };
    turn.commit().await?;
    compared?;
    Ok(Some(Checked { organization: next, rows, differences }))
}

/// Compares all types of machines, which are no organization's.
async fn compare_machine_types(pool: &PgPool) -> Result<Areas, ReadError> {
    let mut tx = epoch_postgres::begin(pool, AT_ONE_MOMENT).await?;
    let places = recompute::machine_types(&mut tx).await?;
    tx.commit().await?;
    Ok(Areas::from([(recompute::MACHINE_TYPES.to_owned(), places)]))
}

/// Compares a part of an organization's rows, and again those that are known to be wrong.
async fn compare(pool: &PgPool, organization: Uuid, round: i64) -> Result<Areas, ReadError> {
    let mut tx = epoch_postgres::begin(pool, AT_ONE_MOMENT).await?;
    let query = "select distinct area from reconciliation_differences \
         where side = 'sums' and organization_id = $1 order by area limit $2";
    let limit = i64::try_from(MAX_FOUND).unwrap_or(i64::MAX);
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
