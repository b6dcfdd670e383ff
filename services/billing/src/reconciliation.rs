//! Whether the numbers that answers are read from are what the owners' events make.
//!
//! The problem: a sum that went wrong, by a fault in the code, in the database or by somebody's hand, looks like any other number.
//!
//! The invariant: three comparisons go on all the time, and together they go from an answer to the events. The sums are compared with what
//! the plain functions make of billing's own copy of the streams (`storage_changes` and `job_moments`, a row an event), in
//! one snapshot, so that events that arrive meanwhile are no difference. The [copy] is compared with what the services have whose events
//! they are. The read models of [accounts], plans and invoices are compared with billing's own log. Of the sums, each step takes the next organization; each round takes another 32 days of it and other files and
//! jobs, and what was wrong before; the types of machines are looked at between two
//! rounds, all of them. Widths are compared with each other and files with
//! the organization, all of them, so that what a sample of one misses another has. Differences stay on record until a later check
//! finds the row right; nothing is repaired silently.

pub mod accounts;
pub mod copy;
mod due;
mod recompute;

use std::{collections::BTreeMap, time::Duration};

use epoch::Timestamp;
use sqlx::{PgConnection, PgPool, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{metering::AT_ONE_MOMENT, projections::ReadError};

/// The time between two steps.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The most differences that are kept of one step.
const MAX_FOUND: usize = 100;

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

/// What stands for a row that isn't there.
const NOTHING: &str = "nothing";

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Sums with billing's copy of the events.
    Sums,
    /// The copy with its owners.
    Copy,
    /// The read models of accounts, plans and invoices with billing's log.
    Accounts,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Copy => "copy",
            Self::Accounts => "accounts",
        }
    }
}

/// A row as it is kept, and as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    kept: String,
    recomputed: String,
}

/// Rows by the place they have, in words.
type Places = BTreeMap<String, Compared>;

/// Areas, in words, and all rows of each.
type Areas = BTreeMap<String, Places>;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
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

/// Says how many differences there are on a side.
async fn report(pool: &PgPool, side: Side) -> Result<(), sqlx::Error> {
    let query = "select count(*) from reconciliation_differences where side = $1";
    let open: i64 = sqlx::query_scalar(query).bind(side.name()).fetch_one(pool).await?;
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    metrics::gauge!("billing_reconciliation_differences", "side" => side.name()).set(open);
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

/// Notes what differs on a side, and forgets what no longer does. `organization` says whose an area is; an area of the sums is the same
/// words for every organization, of the others it is one stream.
async fn note(
    connection: &mut PgConnection,
    side: Side,
    organization: impl Fn(&str) -> Uuid,
    areas: &Areas,
    now: i64,
) -> Result<usize, ReadError> {
    let mut different = Vec::new();
    for (area, places) in areas {
        let of_area = places.iter().filter(|(_, row)| row.kept != row.recomputed);
        different.extend(of_area.map(|(place, row)| (area, place, row)));
    }
    let looked_at: Vec<&str> = areas.keys().map(String::as_str).collect();
    let whose: Vec<Uuid> = looked_at.iter().map(|area| organization(area)).collect();
    let still: Vec<&str> = different.iter().map(|(_, place, _)| place.as_str()).collect();
    sqlx::query(
        "delete from reconciliation_differences d using unnest($2::text[], $3::uuid[]) as l (area, organization_id) \
         where d.side = $1 and d.area = l.area and (d.side <> 'sums' or d.organization_id = l.organization_id) \
             and not d.place = any($4)",
    )
    .bind(side.name())
    .bind(looked_at)
    .bind(whose)
    .bind(still)
    .execute(&mut *connection)
    .await?;
    for (area, place, Compared { kept, recomputed }) in different.iter().take(MAX_FOUND) {
        let organization = organization(area.as_str());
        tracing::error!(side = side.name(), %organization, place, kept, recomputed, "what is kept is not what recomputation gives");
        let insert = "insert into reconciliation_differences \
                 (organization_id, area, place, kept, recomputed, found_at, seen_at, side) \
             values ($1, $2, $3, $4, $5, $6, $6, $7) \
             on conflict (organization_id, place) \
             do update set kept = excluded.kept, recomputed = excluded.recomputed, seen_at = excluded.seen_at";
        sqlx::query(insert)
            .bind(organization)
            .bind(area.as_str())
            .bind(place.as_str())
            .bind(kept.as_str())
            .bind(recomputed.as_str())
            .bind(now)
            .bind(side.name())
            .execute(&mut *connection)
            .await?;
    }
    Ok(different.len())
}
