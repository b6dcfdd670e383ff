//! The task `budgets`: checks budgets, and records the lifetime usage of each account once a day.
//!
//! An alert must come before the invoice, and must count late events and the time in which no process ran. So each round checks every
//! account on its own. A failed account does not stop the others, and a failed recording does not stop the budget check. The
//! [forecast] extrapolates the month so far, and is priced by the same function as the month. A month is checked until [`LOOK_BACK`]
//! after its end; after the end only the actual costs are. An alert is an event, so it is raised once by all processes together.
//! A day's record counts all events known when it is written; later events are part of the next day's.

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
use tokio_util::sync::CancellationToken;
use usage::{
    queries::usage_by_term::{LifetimeUsage, lifetime_usage},
    read_error::ReadError,
};
use uuid::Uuid;

use crate::invoicing::{error::LedgerError, ledger::Ledger, month_usage::Cutoff};

/// The pause between rounds.
const PAUSE: Duration = Duration::from_secs(60);
/// How long a month is checked after its end: a week, in milliseconds.
pub const LOOK_BACK: i64 = 7 * 24 * 3_600_000;
/// The number of accounts read at a time.
const PAGE_SIZE: i64 = 500;
/// The actor of the recorded events.
const ACTOR: &str = "service:billing";

/// An error of checking one account.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The usage cannot be extrapolated.
    #[error(transparent)]
    Forecast(#[from] ForecastOverflow),
    /// The stored bytes do not fit into the event.
    #[error("{bytes} stored bytes exceed the range of the event")]
    Stored { bytes: i128 },
}

impl From<CalendarError> for CheckError {
    fn from(error: CalendarError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<RatingError> for CheckError {
    fn from(error: RatingError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<ReadError> for CheckError {
    fn from(error: ReadError) -> Self {
        Self::Ledger(error.into())
    }
}

/// Checks all accounts, round by round, until `stop` is cancelled.
pub async fn watch(ledger: Ledger, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(round(&ledger)).await {
            failures().increment(1);
            tracing::warn!(%error, "budget round failed; retrying in the next round");
        }
    }
}

/// Checks each account once.
///
/// # Errors
/// [`LedgerError`] when the accounts cannot be listed.
pub async fn round(ledger: &Ledger) -> Result<(), LedgerError> {
    let mut after = None;
    loop {
        let organizations = ledger.account_ids(after, PAGE_SIZE).await?;
        for organization in &organizations {
            check_account(ledger, *organization).await;
        }
        match organizations.last() {
            Some(last) => after = Some(*last),
            None => return Ok(()),
        }
    }
}

/// Records the usage and checks the budget of an account. Failures are logged and counted.
async fn check_account(ledger: &Ledger, organization: Uuid) {
    let results = match ledger.account(organization).await {
        Err(error) => vec![Err(error.into())],
        Ok(account) => vec![
            record_usage(ledger, organization, &account).await,
            check_last_month(ledger, organization, &account).await,
            check_current_month(ledger, organization, &account).await,
        ],
    };
    for error in results.into_iter().filter_map(Result::err) {
        failures().increment(1);
        tracing::error!(%organization, %error, "budget check or usage recording failed");
    }
}

fn failures() -> metrics::Counter {
    metrics::counter!("billing_budget_failures_total")
}

/// Raises the alerts that the current month reaches, by its actual costs and by its forecast.
async fn check_current_month(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), CheckError> {
    let now = ledger.now();
    if account.budget().is_none_or(|budget| budget.amount.is_none()) {
        return Ok(());
    }
    let month = ledger.current_month(account)?;
    let statement = ledger.statement(organization, account, month, Cutoff::as_of(now), &[]).await?;
    let by_the_end = forecast(statement.usage.period, now, &statement.usage.terms)?;
    let by_the_end = rate(&by_the_end, &Default::default())?.map(|invoice| invoice.subtotal);
    check_budget(ledger, organization, month, statement.invoice.subtotal, by_the_end).await
}

/// Raises the alerts that the whole previous month reaches. The last round within that month may have missed late events. The
/// budget must have been set before the end of the month.
async fn check_last_month(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), CheckError> {
    let now = ledger.now();
    let month = ledger.current_month(account)?.previous()?;
    let end = ledger.period(account, month)?.0.end();
    if now.as_millis().saturating_sub(end.as_millis()) >= LOOK_BACK || !account.had_budget(end) {
        return Ok(());
    }
    let statement = ledger.statement(organization, account, month, Cutoff::as_of(now), &[]).await?;
    check_budget(ledger, organization, month, statement.invoice.subtotal, None).await
}

async fn check_budget(
    ledger: &Ledger,
    organization: Uuid,
    month: Month,
    actual: Amount,
    forecast: Option<Amount>,
) -> Result<(), CheckError> {
    let check = AccountCommand::CheckBudget { month, actual, forecast };
    let context = CommandContext::at(ledger.now()).by(ACTOR).for_tenant(organization);
    ledger.accounts.execute(organization, &check, &context).await.map_err(LedgerError::from)?;
    Ok(())
}

/// Records the usage of an account since it was opened, up to the end of its last day. Does nothing if that day is recorded already.
/// All usage is recomputed, so that the record counts late events.
async fn record_usage(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), CheckError> {
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
        stored_bytes: i64::try_from(bytes).map_err(|_| CheckError::Stored { bytes })?,
        byte_milliseconds: used.get(Meter::Storage).to_string(),
        run_milliseconds: used.get(Meter::Compute).to_string(),
    };
    let context = CommandContext::at(now).by(ACTOR).for_tenant(organization);
    let record = AccountCommand::RecordUsage(usage);
    ledger.accounts.execute(organization, &record, &context).await.map_err(LedgerError::from)?;
    Ok(())
}
