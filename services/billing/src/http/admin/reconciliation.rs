//! Whether metering is what recomputation gives, as far as it was checked.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use epoch::Timestamp;
use http_kit::{Caller, Problem, Role};
use serde::Serialize;
use sqlx::{PgPool, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::state::Api;

/// The most differences that are listed.
const LISTED: i64 = 200;

/// How far the checks are and what they found.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReconciliationAnswer {
    /// Whether no difference is on record, on any side. See `unreachable_since` for whether all owners could be asked.
    equal: bool,
    /// What answers are read from, compared with billing's copy of the events.
    sums: SumsAnswer,
    /// The copy, compared with what the services have whose events they are, by aggregate.
    copy: BTreeMap<String, CopyAnswer>,
    /// The read models of accounts, plans and invoices, compared with billing's own events.
    accounts: AccountsAnswer,
    /// How many differences are on record.
    difference_count: i64,
    /// The first 200 of them, by side, organization and place.
    differences: Vec<DifferenceAnswer>,
}

/// The sums, compared with the copy.
#[derive(Debug, Serialize, ToSchema)]
struct SumsAnswer {
    /// How often all organizations have been looked at.
    round: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    round_began_at: Option<String>,
    /// The organization that was looked at last in this round.
    organization: Option<Uuid>,
    /// How many looks there have been, at an organization or, at the end of a round, at the types of machines.
    checks: i64,
    /// How many rows have been compared.
    rows_compared: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_check_at: Option<String>,
    /// How many differences are on record.
    difference_count: i64,
}

/// The copy of an aggregate's events, compared with its owner.
#[derive(Debug, Serialize, ToSchema)]
struct CopyAnswer {
    /// How often all of the owner's streams have been walked.
    round: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    round_began_at: Option<String>,
    /// The owner's stream that was reached last in this round.
    stream: Option<Uuid>,
    /// The organization that a sample was taken of last.
    organization: Option<Uuid>,
    /// How many looks there have been.
    checks: i64,
    /// How many rows have been compared, cursors among them.
    rows_compared: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_check_at: Option<String>,
    /// How many times streams were passed over since there was more of them than one look compares.
    skipped: i64,
    /// How many looks the owner has given no answer to.
    unreachable: i64,
    /// Since when it gives none.
    #[schema(value_type = Option<String>, format = DateTime)]
    unreachable_since: Option<String>,
    /// Why not.
    unreachable_why: Option<String>,
    /// How many differences are on record.
    difference_count: i64,
}

/// The read models of accounts, plans and invoices, compared with billing's own events.
#[derive(Debug, Serialize, ToSchema)]
struct AccountsAnswer {
    /// How often all of them have been walked.
    round: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    round_began_at: Option<String>,
    /// The last id that was reached in this round.
    stream: Option<Uuid>,
    /// How many looks there have been.
    checks: i64,
    /// How many rows have been compared, cursors among them.
    rows_compared: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_check_at: Option<String>,
    /// How many differences are on record.
    difference_count: i64,
}

/// A row that is not what recomputation gives.
#[derive(Debug, Serialize, ToSchema)]
struct DifferenceAnswer {
    /// `sums`, `copy` or `accounts`.
    side: String,
    /// Nil where it isn't known.
    organization: Uuid,
    /// Which row of which table.
    place: String,
    /// What is kept there.
    kept: String,
    /// What recomputation gives, on the side of the copy from what the owner has.
    recomputed: String,
    #[schema(value_type = String, format = DateTime)]
    found_at: String,
    /// When it was last seen to differ.
    #[schema(value_type = String, format = DateTime)]
    seen_at: String,
}

/// Metering, reconciled
///
/// Background tasks compare a rolling sample of what answers are read from with recomputation from billing's copy of the events, and
/// a rolling sample of the copy with the services whose events they are; and the rows of accounts, plans and invoices with billing's own
/// events. For operators.
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
    let sums = sums(&api.pool).await?;
    let copy = copies(&api.pool).await?;
    let accounts = accounts(&api.pool).await?;
    let query = "select * from reconciliation_differences order by side, organization_id, place limit $1";
    let mut differences = Vec::new();
    for row in sqlx::query(query).bind(LISTED).fetch_all(&api.pool).await? {
        differences.push(DifferenceAnswer {
            side: row.try_get("side")?,
            organization: row.try_get("organization_id")?,
            place: row.try_get("place")?,
            kept: row.try_get("kept")?,
            recomputed: row.try_get("recomputed")?,
            found_at: instant(row.try_get("found_at")?),
            seen_at: instant(row.try_get("seen_at")?),
        });
    }
    let own = sums.difference_count + accounts.difference_count;
    let difference_count = copy.values().fold(own, |all, copy| all + copy.difference_count);
    Ok(Json(ReconciliationAnswer { equal: difference_count == 0, sums, copy, accounts, difference_count, differences }))
}

fn instant(at: i64) -> String {
    Timestamp::from_millis(at).to_string()
}

async fn sums(pool: &PgPool) -> Result<SumsAnswer, sqlx::Error> {
    let query = "select *, (select count(*) from reconciliation_differences where side = 'sums') as differences \
         from reconciliation_state";
    let row = sqlx::query(query).fetch_one(pool).await?;
    let at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(instant));
    Ok(SumsAnswer {
        round: row.try_get("round")?,
        round_began_at: at("round_began_at")?,
        organization: row.try_get("organization")?,
        checks: row.try_get("checks")?,
        rows_compared: row.try_get("rows_compared")?,
        last_check_at: at("last_check_at")?,
        difference_count: row.try_get("differences")?,
    })
}

async fn accounts(pool: &PgPool) -> Result<AccountsAnswer, sqlx::Error> {
    let query = "select *, (select count(*) from reconciliation_differences where side = 'accounts') as differences \
         from reconciliation_accounts";
    let row = sqlx::query(query).fetch_one(pool).await?;
    let at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(instant));
    Ok(AccountsAnswer {
        round: row.try_get("round")?,
        round_began_at: at("round_began_at")?,
        stream: row.try_get("listed")?,
        checks: row.try_get("checks")?,
        rows_compared: row.try_get("rows_compared")?,
        last_check_at: at("last_check_at")?,
        difference_count: row.try_get("differences")?,
    })
}

async fn copies(pool: &PgPool) -> Result<BTreeMap<String, CopyAnswer>, sqlx::Error> {
    let query = "select *, (select count(*) from reconciliation_differences d \
             where d.side = 'copy' and d.area like 'copy of ' || c.aggregate || ' %') as differences \
         from reconciliation_copies c";
    let mut copies = BTreeMap::new();
    for row in &sqlx::query(query).fetch_all(pool).await? {
        let at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(instant));
        let copy = CopyAnswer {
            round: row.try_get("round")?,
            round_began_at: at("round_began_at")?,
            stream: row.try_get("listed")?,
            organization: row.try_get("organization")?,
            checks: row.try_get("checks")?,
            rows_compared: row.try_get("rows_compared")?,
            last_check_at: at("last_check_at")?,
            skipped: row.try_get("skipped")?,
            unreachable: row.try_get("unreachable")?,
            unreachable_since: at("unreachable_since")?,
            unreachable_why: row.try_get("unreachable_why")?,
            difference_count: row.try_get("differences")?,
        };
        copies.insert(row.try_get("aggregate")?, copy);
    }
    Ok(copies)
}
