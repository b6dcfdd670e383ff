//! Differences that reconciliation found: areas, places, and the table that keeps them.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::read_error::ReadError;

/// What stands for a row that isn't there.
pub(super) const NOTHING: &str = "nothing";

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Sums with billing's copy of the events.
    Sums,
    /// The copy with its owners.
    Copy,
    /// The read models of accounts, plans and invoices with billing's log.
    Accounts,
}

impl Side {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Copy => "copy",
            Self::Accounts => "accounts",
        }
    }
}

/// A row as it is kept, and as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) kept: String,
    pub(super) recomputed: String,
}

/// Rows by the place they have, in words.
pub(super) type Places = BTreeMap<String, Compared>;

/// Areas, in words, and all rows of each.
pub(super) type Areas = BTreeMap<String, Places>;

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The most differences that are kept of one step.
pub(super) const MAX_FOUND: usize = 100;

/// Says how many differences there are on a side.
pub(super) async fn report(pool: &PgPool, side: Side) -> Result<(), sqlx::Error> {
    let query = "select count(*) from reconciliation_differences where side = $1";
    let open: i64 = sqlx::query_scalar(query).bind(side.name()).fetch_one(pool).await?;
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    metrics::gauge!("billing_reconciliation_differences", "side" => side.name()).set(open);
    Ok(())
}

/// Notes what differs on a side, and forgets what no longer does. `organization` says whose an area is; an area of the sums is the same
/// words for every organization, of the others it is one stream.
pub(super) async fn note(
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
