//! Differences found by reconciliation, and the table that records them.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::read_error::ReadError;

/// Stands for a missing row.
pub(super) const NOTHING: &str = "nothing";

/// The comparison that found a difference. Its name is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Rollups against billing's copy of the events.
    Sums,
    /// The copy against the owners of the events.
    Copy,
    /// The read models of accounts, plans and invoices against billing's log.
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

/// A stored row and its recomputation, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowComparison {
    pub(super) stored: String,
    pub(super) recomputed: String,
}

/// Comparisons by the place of the row, a text.
pub(super) type Comparisons = BTreeMap<String, RowComparison>;

/// Areas and the comparisons in each. An area is the unit that a step checks completely.
pub(super) type Areas = BTreeMap<String, Comparisons>;

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The maximum number of differences that one step records.
pub(super) const MAX_DIFFERENCES: usize = 100;

/// Updates the metric of recorded differences.
pub(super) async fn report(pool: &PgPool, side: Side) -> Result<(), sqlx::Error> {
    let query = "select count(*) from reconciliation_differences where side = $1";
    let open: i64 = sqlx::query_scalar(query).bind(side.name()).fetch_one(pool).await?;
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    metrics::gauge!("billing_reconciliation_differences", "side" => side.name()).set(open);
    Ok(())
}

/// Records differences and deletes those that no longer hold. `organization` returns the organization of an
/// area. Areas of rollups have the same names in every organization; other areas name one stream.
pub(super) async fn record_differences(
    connection: &mut PgConnection,
    side: Side,
    organization: impl Fn(&str) -> Uuid,
    areas: &Areas,
    now: i64,
) -> Result<usize, ReadError> {
    let mut different = Vec::new();
    for (area, comparisons) in areas {
        let of_area = comparisons.iter().filter(|(_, row)| row.stored != row.recomputed);
        different.extend(of_area.map(|(place, row)| (area, place, row)));
    }
    let checked: Vec<&str> = areas.keys().map(String::as_str).collect();
    let organizations: Vec<Uuid> = checked.iter().map(|area| organization(area)).collect();
    let remaining: Vec<&str> = different.iter().map(|(_, place, _)| place.as_str()).collect();
    sqlx::query(include_str!("difference/delete_resolved.sql"))
        .bind(side.name())
        .bind(checked)
        .bind(organizations)
        .bind(remaining)
        .execute(&mut *connection)
        .await?;
    for (area, place, RowComparison { stored, recomputed }) in different.iter().take(MAX_DIFFERENCES) {
        let organization = organization(area.as_str());
        tracing::error!(side = side.name(), %organization, place, stored, recomputed, "stored row differs from its recomputation");
        let insert = include_str!("difference/upsert.sql");
        sqlx::query(insert)
            .bind(organization)
            .bind(area.as_str())
            .bind(place.as_str())
            .bind(stored.as_str())
            .bind(recomputed.as_str())
            .bind(now)
            .bind(side.name())
            .execute(&mut *connection)
            .await?;
    }
    Ok(different.len())
}
