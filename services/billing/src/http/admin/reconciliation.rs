//! The progress and the differences of the reconciliation of metering data.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use epoch::Timestamp;
use http_kit::{Caller, Problem, Role};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{problems::OperatorReadProblems, state::Api};

/// The maximum number of listed differences.
const MAX_LISTED: i64 = 200;

/// Progress and differences of the reconciliation.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ReconciliationResponse {
    /// Whether no difference is recorded on any side. `unreachable_since` shows whether all owners could be asked.
    equal: bool,
    /// The rollups, compared with billing's copy of the events.
    sums: RollupReconciliationResponse,
    /// The copies by aggregate, compared with the events of the service that owns them.
    copy: BTreeMap<String, CopyReconciliationResponse>,
    /// The read models of accounts, plans and invoices, compared with billing's own events.
    accounts: AccountReconciliationResponse,
    /// The number of recorded differences.
    difference_count: i64,
    /// The first 200 differences, by side, organization and place.
    differences: Vec<ReconciliationDifferenceResponse>,
}

/// Progress and result of one check. Each round covers all data once, and each step of it one sample.
#[derive(Debug, Serialize, FromRow, ToSchema)]
struct ReconciliationProgressResponse {
    /// The number of completed rounds.
    round: i64,
    /// The start of the current round. Null before the first.
    #[sqlx(try_from = "Option<i64>")]
    #[schema(value_type = Option<String>, format = DateTime)]
    round_began_at: OptionalInstant,
    /// The number of steps so far, over all rounds.
    checks: i64,
    /// The number of compared rows, cursors included.
    rows_compared: i64,
    /// The instant of the last step. Null before the first.
    #[sqlx(try_from = "Option<i64>")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_check_at: OptionalInstant,
    /// The number of recorded differences.
    #[sqlx(rename = "differences")]
    difference_count: i64,
}

/// Progress of comparing rollups with the copy of the events.
#[derive(Debug, Serialize, FromRow, ToSchema)]
struct RollupReconciliationResponse {
    #[serde(flatten)]
    #[sqlx(flatten)]
    progress: ReconciliationProgressResponse,
    /// The last compared organization of this round.
    organization: Option<Uuid>,
}

/// Progress of comparing the copy of an aggregate's events with their owner.
#[derive(Debug, Serialize, FromRow, ToSchema)]
struct CopyReconciliationResponse {
    #[serde(skip)]
    aggregate: String,
    #[serde(flatten)]
    #[sqlx(flatten)]
    progress: ReconciliationProgressResponse,
    /// The last compared stream of this round.
    #[sqlx(rename = "listed")]
    stream: Option<Uuid>,
    /// The last organization of which a sample was compared.
    organization: Option<Uuid>,
    /// How many times a stream was skipped because it has more events than one step compares.
    skipped: i64,
    /// The number of steps in which the owner did not respond.
    unreachable: i64,
    /// The instant since which the owner does not respond. Null while it does.
    #[sqlx(try_from = "Option<i64>")]
    #[schema(value_type = Option<String>, format = DateTime)]
    unreachable_since: OptionalInstant,
    /// The error of the last request to the owner. Null while it responds.
    unreachable_why: Option<String>,
}

/// Progress of comparing the read models of accounts, plans and invoices with billing's own events.
#[derive(Debug, Serialize, FromRow, ToSchema)]
struct AccountReconciliationResponse {
    #[serde(flatten)]
    #[sqlx(flatten)]
    progress: ReconciliationProgressResponse,
    /// The last compared stream of this round.
    #[sqlx(rename = "listed")]
    stream: Option<Uuid>,
}

/// A row that differs from its recomputation.
#[derive(Debug, Serialize, FromRow, ToSchema)]
struct ReconciliationDifferenceResponse {
    /// `sums` for rollups, `copy` for copies of events, or `accounts`.
    #[schema(example = "sums")]
    side: String,
    /// The nil UUID where the organization is unknown.
    #[sqlx(rename = "organization_id")]
    organization: Uuid,
    /// The table and the row.
    place: String,
    /// The stored value.
    kept: String,
    /// The recomputed value. For copies, it is recomputed from the owner's events.
    recomputed: String,
    /// The instant at which the difference was found.
    #[sqlx(try_from = "i64")]
    #[schema(value_type = String, format = DateTime)]
    found_at: Instant,
    /// The instant at which the difference was last confirmed.
    #[sqlx(try_from = "i64")]
    #[schema(value_type = String, format = DateTime)]
    seen_at: Instant,
}

/// Unix milliseconds in the database, RFC 3339 in a response.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
struct Instant(String);

impl From<i64> for Instant {
    fn from(millis: i64) -> Self {
        Self(Timestamp::from_millis(millis).to_string())
    }
}

/// As [`Instant`], or null.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
struct OptionalInstant(Option<Instant>);

impl From<Option<i64>> for OptionalInstant {
    fn from(millis: Option<i64>) -> Self {
        Self(millis.map(Instant::from))
    }
}

/// Get the reconciliation of metering data
///
/// Background tasks compare rolling samples: rollups with billing's copy of the events, the copy with the services that own the
/// events, and the read models of accounts, plans and invoices with billing's own events. Requires the role `operator`.
#[utoipa::path(
    get, path = "/api/v1/admin/metering/reconciliation", tag = "billing",
    responses(
        (status = 200, description = "The progress and the differences.", body = ReconciliationResponse),
        OperatorReadProblems,
    )
)]
pub(in crate::http) async fn get_reconciliation(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<ReconciliationResponse>, Problem> {
    caller.at_least(Role::Operator)?;
    let sums: RollupReconciliationResponse =
        sqlx::query_as(include_str!("reconciliation/rollups.sql")).fetch_one(&api.pool).await?;
    let copies: Vec<CopyReconciliationResponse> =
        sqlx::query_as(include_str!("reconciliation/copies.sql")).fetch_all(&api.pool).await?;
    let copy: BTreeMap<_, _> = copies.into_iter().map(|copy| (copy.aggregate.clone(), copy)).collect();
    let accounts: AccountReconciliationResponse =
        sqlx::query_as(include_str!("reconciliation/accounts.sql")).fetch_one(&api.pool).await?;
    let list = "select * from reconciliation_differences order by side, organization_id, place limit $1";
    let differences = sqlx::query_as(list).bind(MAX_LISTED).fetch_all(&api.pool).await?;
    let of_copies: i64 = copy.values().map(|copy| copy.progress.difference_count).sum();
    let difference_count = sums.progress.difference_count + accounts.progress.difference_count + of_copies;
    let equal = difference_count == 0;
    Ok(Json(ReconciliationResponse { equal, sums, copy, accounts, difference_count, differences }))
}
