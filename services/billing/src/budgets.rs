//! Watching what accounts use: budgets, and the totals of each day.
//!
//! The problem: an alert that comes with the invoice comes too late.
//!
//! The invariant: every account with a budget is looked at once a round, on its own; one that fails doesn't keep the others from
//! being looked at. The forecast is this month's usage so far, continued at the same pace to the month's end, and priced by the
//! same function. What was said is an event, so it is said once, whichever process says it.

use std::time::Duration;

use contracts::billing_account::UsageMetered;
use epoch::{CommandContext, Timestamp};
use sqlx::Row;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::{
        account::{Account, AccountCommand},
        days::{beginning_of_day, zone},
        money::Amount,
        rating::{Metered, rate},
        span::Span,
    },
    ledger::{Ledger, LedgerError, When},
};

/// How often accounts are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// How many accounts are read at a time.
const PAGE: i64 = 500;
/// Who says so, as events remember.
const ACTOR: &str = "service:billing";

/// Looks at all accounts until `stop` is cancelled.
pub async fn watch(ledger: Ledger, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(round(&ledger)).await {
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
            if let Err(error) = look(ledger, after).await {
                metrics::counter!("billing_budget_failures_total").increment(1);
                tracing::error!(organization = %after, %error, "an account's budget can't be looked at");
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

async fn look(ledger: &Ledger, organization: Uuid) -> Result<(), LedgerError> {
    let account = ledger.account(organization).await?;
    record_usage(ledger, organization, &account).await?;
    if account.budget().is_some_and(|budget| budget.amount.is_some()) {
        check(ledger, organization, &account).await?;
    }
    Ok(())
}

/// Says which thresholds of an account's budget are reached.
///
/// # Errors
/// [`LedgerError`].
pub async fn check(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), LedgerError> {
    let (month, now) = (ledger.current_month(account)?, ledger.now());
    let statement = ledger.statement(organization, account, month, When::as_of(now), &[]).await?;
    let period = statement.used.period;
    let (gone, whole) = (Span::new(period.start(), now).millis(), period.millis());
    let forecast = match gone {
        0 => Amount::zero(account.currency()?),
        gone => {
            let continued = |metered: i128| metered.saturating_mul(whole) / gone;
            let usage: Vec<_> = statement
                .used
                .terms
                .iter()
                .map(|(term, metered)| {
                    let metered = Metered { byte_ms: continued(metered.byte_ms), run_ms: continued(metered.run_ms) };
                    (term.clone(), metered)
                })
                .collect();
            let invoice = rate(&usage, &Default::default())?;
            invoice.map_or_else(|| Amount::zero(statement.invoice.currency), |invoice| invoice.total)
        }
    };
    let check = AccountCommand::CheckBudget { month, actual: statement.invoice.subtotal, forecast };
    let context = CommandContext::at(now).by(ACTOR).for_tenant(organization);
    ledger.accounts.execute(organization, &check, &context).await?;
    Ok(())
}

/// Records what an account has used up to the end of its last day, once a day.
async fn record_usage(ledger: &Ledger, organization: Uuid, account: &Account) -> Result<(), LedgerError> {
    let now = ledger.now();
    let zone = zone(account.time_zone(ledger.current_month(account)?))?;
    let through = beginning_of_day(now, &zone)?;
    let known = account.metered();
    let since = known.map_or(Timestamp::from_millis(0), |known| known.through_at);
    if through <= since {
        return Ok(());
    }
    let metered = used_in(ledger, organization, Span::new(since, through)).await?;
    // What is stored at an instant is the area over the millisecond that begins with it.
    let after = Timestamp::from_millis(through.as_millis().saturating_add(1));
    let stored = used_in(ledger, organization, Span::new(through, after)).await?.byte_ms;
    let before = |digits: Option<&String>| digits.and_then(|digits| digits.parse::<i128>().ok()).unwrap_or(0);
    let byte_ms = before(known.map(|known| &known.byte_milliseconds)) + metered.byte_ms;
    let run_ms = before(known.map(|known| &known.run_milliseconds)) + metered.run_ms;
    let usage = UsageMetered {
        through_at: through,
        stored_bytes: i64::try_from(stored).unwrap_or(i64::MAX),
        byte_milliseconds: byte_ms.to_string(),
        run_milliseconds: run_ms.to_string(),
    };
    let context = CommandContext::at(now).by(ACTOR).for_tenant(organization);
    ledger.accounts.execute(organization, &AccountCommand::RecordUsage(usage), &context).await?;
    Ok(())
}

async fn used_in(ledger: &Ledger, organization: Uuid, period: Span) -> Result<Metered, LedgerError> {
    let mut snapshot = ledger.snapshot(organization, period, When::as_of(period.end())).await?;
    let [metered] = snapshot.charged([&[period]]).await?.lists;
    Ok(metered.into_iter().fold(Metered::default(), Metered::plus))
}
