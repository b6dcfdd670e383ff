//! Whether metering is what recomputation gives, as far as it was checked.

use axum::{Json, extract::State};
use epoch::Timestamp;
use serde::Serialize;
use service_kit::{Caller, Problem, Role};
use sqlx::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;

/// The most differences that are listed.
const LISTED: i64 = 200;

/// How far the check is and what it found.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReconciliationAnswer {
    /// Whether no difference is on record.
    equal: bool,
    /// How often all organizations have been looked at.
    round: i64,
    /// The organization that was looked at last in this round.
    organization: Option<Uuid>,
    /// How many looks there have been at an organization.
    checks: i64,
    /// How many rows have been compared.
    rows_compared: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_check_at: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    round_began_at: Option<String>,
    /// How many differences are on record.
    difference_count: i64,
    /// The first 200 of them, by organization and place.
    differences: Vec<DifferenceAnswer>,
}

/// A row that is not what recomputation gives.
#[derive(Debug, Serialize, ToSchema)]
struct DifferenceAnswer {
    organization: Uuid,
    /// Which row of which table.
    place: String,
    /// What is kept there.
    kept: String,
    /// What recomputation gives.
    recomputed: String,
    #[schema(value_type = String, format = DateTime)]
    found_at: String,
    /// When it was last seen to differ.
    #[schema(value_type = String, format = DateTime)]
    seen_at: String,
}

/// Metering, reconciled
///
/// A background task compares a rolling sample of what answers are read from with recomputation from the events
/// as it took them over the bus. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/admin/metering/reconciliation",
    tag = "billing",
    responses(
        (status = 200, body = ReconciliationAnswer),
        (status = 403, description = "The caller isn't an operator", body = Problem),
    )
)]
pub async fn reconciliation(State(api): State<Api>, caller: Caller) -> Result<Json<ReconciliationAnswer>, Problem> {
    caller.at_least(Role::Operator)?;
    let query = "select state.*, (select count(*) from reconciliation_differences) as differences \
         from reconciliation_state state";
    let state = sqlx::query(query).fetch_one(&api.pool).await?;
    let instant = |at: i64| Timestamp::from_millis(at).to_string();
    let query = "select * from reconciliation_differences order by organization_id, place limit $1";
    let mut differences = Vec::new();
    for row in sqlx::query(query).bind(LISTED).fetch_all(&api.pool).await? {
        differences.push(DifferenceAnswer {
            organization: row.try_get("organization_id")?,
            place: row.try_get("place")?,
            kept: row.try_get("kept")?,
            recomputed: row.try_get("recomputed")?,
            found_at: instant(row.try_get("found_at")?),
            seen_at: instant(row.try_get("seen_at")?),
        });
    }
    let difference_count: i64 = state.try_get("differences")?;
    Ok(Json(ReconciliationAnswer {
        equal: difference_count == 0,
        round: state.try_get("round")?,
        organization: state.try_get("organization")?,
        checks: state.try_get("checks")?,
        rows_compared: state.try_get("rows_compared")?,
        last_check_at: state.try_get::<Option<i64>, _>("last_check_at")?.map(instant),
        round_began_at: state.try_get::<Option<i64>, _>("round_began_at")?.map(instant),
        difference_count,
        differences,
    }))
}
