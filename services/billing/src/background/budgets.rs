//! Watching what accounts use: budgets, and the totals of each day.
//!
//! The problem: an alert that comes with the invoice comes too late; and what is heard late, or while nobody looked, must count as well.
//!
//! The invariant: every account is looked at once a round, on its own; one that fails doesn't keep the others from being looked at, nor
//! its totals its budget. The forecast is the [month so far, continued](forecast), and priced by the same function. A month is looked
//! at until [`LOOK_BACK`] after its end, then only for what was used. What was said is an event, so it is said once, whichever process
//! says it. Totals are made of all that is known when their day ends, so that what comes late is in those of the day after.

use std::time::Duration;

use contracts::billing_account::UsageMetered;
use epoch::CommandContext;
use rating::{
    account::{Account, AccountCommand},
    calendar::{
        day::{CalendarError, start_of_day, zone},
        month::Month,
    },
    money::amount::Amount,
    pricing::meter::Meter,
    rating::{
        forecast::{ForecastOverflow, forecast},
        rate::{RatingError, rate},
    },
};
use sqlx::Row;
use tokio_util::sync::CancellationToken;
use usage::{
    queries::usage_by_term::{LifetimeUsage, lifetime_usage},
    read_error::ReadError,
};
use uuid::Uuid;

use crate::invoicing::{error::LedgerError, ledger::Ledger, month_usage::When};

/// How often accounts are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// For how long after its end a month is still looked at: a week, in milliseconds.
pub const LOOK_BACK: i64 = 7 * 24 * 3_600_000;
/// How many accounts are read at a time.
const PAGE: i64 = 500;
/// Who says so, as events remember.
const ACTOR: &str = "service:billing";

/// Why an account can't be looked at.
#[derive(Debug, thiserror::Error)]
enum LookError {
    /// The ledger has no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Its usage can't be forecast.
    #[error(transparent)]
    Forecast(#[from] ForecastOverflow),
    /// More is stored than an event can tell, or less.
    #[error("{bytes} bytes are stored, which no event can tell")]
    Stored {
        /// How many bytes.
        bytes: i128,
    },
}

impl From<CalendarError> for LookError {
    fn from(error: CalendarError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<RatingError> for LookError {
    fn from(error: RatingError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<ReadError> for LookError {
    fn from(error: ReadError) -> Self {
        Self::Ledger(error.into())
    }
}

/// Looks at all accounts until `stop` is cancelled.
pub async fn watch(ledger: Ledger, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(round(&ledger)).await {
            failures().increment(1);
            tracing::warn!(%error, "budgets are looked at again later");
        }
    }
}

/// Looks at each account once.
///
/// # Errors
/// When the accounts can't be listed.
pub async fn round(ledger: &Ledger) -> Result<(), LedgerError> {
    let list =
        "select organization_id from billing_accounts where organization_id > $1 order by organization_id limit $2";
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query(list).bind(after).bind(PAGE).fetch_all(ledger.store().pool()).await?;
        for row in &rows {
            after = row.try_get("organization_id")?;
            look(ledger, after).await;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

/// Does all that is to be done about an account; what fails is counted.
async fn look(ledger: &Ledger, organization: Uuid) {
    let done = match ledger.account(organization).await {
        Err(error) => vec![Err(error.into())],
        Ok(account) => vec![
            record_usage(ledger, organization, &account).await,
            check_last_month(ledger, organization, &account).await,
            check(ledger, organization, &account).await,
        ],
    };
    for error in done.into_iter().filter_map(Result::err) {
        failures().increment(1);
        tracing::error!(%organization, %error, "an account's budget or totals can't be looked at");
    }
}

fn failures() -> metrics::Counter {
    metrics::counter!("billing_budget_failures_total")
}

/// Says which thresholds of an account's budget are reached in the month that is under way.
async fn check(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), LookError> {
    let now = ledger.now();
    if account.budget().is_none_or(|budget| budget.amount.is_none()) {
        return Ok(());
    }
    let month = ledger.current_month(account)?;
    let statement = ledger.statement(organization, account, month, When::as_of(now), &[]).await?;
    let by_the_end = forecast(statement.used.period, now, &statement.used.terms)?;
    let by_the_end = rate(&by_the_end, &Default::default())?.map(|invoice| invoice.subtotal);
    say(ledger, organization, month, statement.invoice.subtotal, by_the_end).await
}

/// Says which thresholds were reached in the month before, as a whole, which its last round may not have known. The budget must have been
/// set before the month's end.
async fn check_last_month(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), LookError> {
    let now = ledger.now();
    let month = ledger.current_month(account)?.previous()?;
    let end = ledger.period(account, month)?.0.end();
    if now.as_millis().saturating_sub(end.as_millis()) >= LOOK_BACK || !account.had_budget(end) {
        return Ok(());
    }
    let statement = ledger.statement(organization, account, month, When::as_of(now), &[]).await?;
    say(ledger, organization, month, statement.invoice.subtotal, None).await
}

async fn say(
    ledger: &Ledger,
    organization: Uuid,
    month: Month,
    actual: Amount,
    forecast: Option<Amount>,
) -> Result<(), LookError> {
    let check = AccountCommand::CheckBudget { month, actual, forecast };
    let context = CommandContext::at(ledger.now()).by(ACTOR).for_tenant(organization);
    ledger.accounts.execute(organization, &check, &context).await.map_err(LedgerError::from)?;
    Ok(())
}

/// Records what an account has used up to the end of its last day, once a day: all of it anew, by what is known now.
async fn record_usage(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), LookError> {
    let now = ledger.now();
    let zone = zone(account.time_zone(ledger.current_month(account)?))?;
    let through = start_of_day(now, &zone)?;
    if account.metered().is_some_and(|known| through <= known.through_at) {
        return Ok(());
    }
    let LifetimeUsage { used, stored_bytes: bytes } =
        lifetime_usage(ledger.store().pool(), organization, through).await?;
    let usage = UsageMetered {
        through_at: through,
        stored_bytes: i64::try_from(bytes).map_err(|_| LookError::Stored { bytes })?,
        byte_milliseconds: used.get(Meter::Storage).to_string(),
        run_milliseconds: used.get(Meter::Compute).to_string(),
    };
    let context = CommandContext::at(now).by(ACTOR).for_tenant(organization);
    let record = AccountCommand::RecordUsage(usage);
    ledger.accounts.execute(organization, &record, &context).await.map_err(LedgerError::from)?;
    Ok(())
}
