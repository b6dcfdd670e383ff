//! Freezing invoices, correcting them and undoing them.
//!
//! The problem: numbers must have no holes, and what comes late for a frozen month must be charged or given back once.
//!
//! The invariant: whatever changes an account's invoices holds the account's lock until it commits. A number is taken by the
//! transaction that commits its document, and by no other. Before a month is frozen all earlier invoices are compared with what
//! is known now; the differences are booked on them and settled with it.

use std::sync::Arc;

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::{Correction, Day, InvoiceDrafted, InvoiceFinalized, Line};
use epoch::{CommandContext, Executed};
use epoch_postgres::PgTx;
use futures::FutureExt;
use uuid::Uuid;

use super::{Ledger, LedgerError, MAX_ATTEMPTS, Statement, invoice_id};
use crate::domain::{
    account::{Account, AccountCommand},
    currency::Currency,
    invoice::{InvoiceCommand, InvoiceState, LineKey, LineNow},
    money::Amount,
    month::Month,
};

/// The series of invoices and credit notes.
const SERIES: &str = "invoice";
/// How many digits of the rounding are shown.
const DIGITS: u8 = 12;
/// Why an adjustment is booked.
const LATE: &str = "events were heard after the invoice was finalized";

impl Ledger {
    /// Freezes a month's invoice under the next number.
    ///
    /// # Errors
    /// [`LedgerError`]; the month must be over.
    pub async fn finalize(
        &self,
        organization: Uuid,
        month: Month,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        let (ledger, context) = (self.clone(), context.clone());
        let committed = self.store.transaction(move |tx| {
            let (ledger, context) = (ledger.clone(), context.clone());
            async move { ledger.finalize_in(tx, organization, month, &context).await }.boxed()
        });
        committed.await
    }

    /// Undoes a month's invoice; a finalized one by a credit note under the next number.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn void(
        &self,
        organization: Uuid,
        month: Month,
        reason: &str,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        let (ledger, context, reason) = (self.clone(), context.clone(), reason.to_owned());
        let committed = self.store.transaction(move |tx| {
            let (ledger, context, reason) = (ledger.clone(), context.clone(), reason.clone());
            async move { ledger.void_in(tx, organization, month, reason, &context).await }.boxed()
        });
        committed.await
    }

    /// The corrections of earlier invoices that are settled with an invoice.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn corrections(&self, account: &Account, settled_in: Uuid) -> Result<Vec<Correction>, LedgerError> {
        let mut corrections = Vec::new();
        for id in account.invoices().keys() {
            corrections.extend(corrections_of(*id, &self.invoices.load(*id).await?.state, settled_in));
        }
        Ok(corrections)
    }

    async fn finalize_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        month: Month,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        lock(tx, organization).await?;
        let account = tx.load(&self.accounts, organization).await?.state;
        let currency = account.currency()?;
        let (period, zone) = self.period(&account, month)?;
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        if let Some(frozen) = invoice.finalized() {
            // The same request again is answered as the first time; another one is refused.
            let again = InvoiceCommand::Finalize(Box::new(frozen.clone()));
            return Ok(tx.execute(&self.invoices, id, &again, context).await?);
        }
        let now = self.now();
        if now < period.end() {
            return Err(LedgerError::NotOver { month, end: period.end() });
        }
        let drafted = InvoiceDrafted {
            organization_id: organization,
            month: month.to_string(),
            start_at: period.start(),
            end_at: period.end(),
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        };
        let aside = aside(context);
        tx.execute(&self.invoices, id, &InvoiceCommand::Draft(drafted), &aside).await?;
        let mut corrections = Vec::new();
        for earlier in account.invoices().keys() {
            self.adjust_in(tx, organization, &account, *earlier, id, &aside).await?;
            corrections.extend(corrections_of(*earlier, &tx.load(&self.invoices, *earlier).await?.state, id));
        }
        let corrected = sum(&corrections, currency)?;
        let statement = self.statement(organization, &account, month, now, &corrected).await?;
        let number = take_number(tx).await?;
        let frozen = frozen(organization, number, &statement, corrections);
        let executed = tx.execute(&self.invoices, id, &InvoiceCommand::Finalize(Box::new(frozen)), context).await?;
        let credit_used = statement.invoice.credit_applied;
        let invoiced = AccountCommand::Invoiced { invoice: id, end: period.end(), credit_used };
        tx.execute(&self.accounts, organization, &invoiced, &aside).await?;
        Ok(executed)
    }

    /// Books on a finalized invoice how it differs from what is known now.
    async fn adjust_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        account: &Account,
        id: Uuid,
        settled_in: Uuid,
        context: &CommandContext,
    ) -> Result<(), LedgerError> {
        let invoice = tx.load(&self.invoices, id).await?.state;
        let Some(drafted) = invoice.drafted().filter(|_| invoice.voided().is_none()) else { return Ok(()) };
        let Ok(month) = drafted.month.parse::<Month>() else { return Ok(()) };
        let none = BigInt::from(0);
        let statement = self.statement(organization, account, month, self.now(), &none).await?;
        let line_now = |line: &crate::domain::rating::Line| LineNow {
            key: LineKey {
                meter: line.meter.as_str().to_owned(),
                plan: line.plan.plan.clone(),
                plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
            },
            metered: line.quantity.metered,
            amount: line.amount.clone(),
        };
        let lines = statement.invoice.lines.iter().map(line_now).collect();
        let adjust = InvoiceCommand::Adjust { lines, settled_in, reason: LATE.to_owned() };
        tx.execute(&self.invoices, id, &adjust, context).await?;
        Ok(())
    }

    async fn void_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        month: Month,
        reason: String,
        context: &CommandContext,
    ) -> Result<Executed, LedgerError> {
        lock(tx, organization).await?;
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        let credit_note = if invoice.finalized().is_some() { take_number(tx).await? } else { 0 };
        let executed = tx.execute(&self.invoices, id, &InvoiceCommand::Void { reason, credit_note }, context).await?;
        let voided = AccountCommand::InvoiceVoided { invoice: id };
        tx.execute(&self.accounts, organization, &voided, &aside(context)).await?;
        Ok(executed)
    }

    async fn invoice_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        month: Month,
    ) -> Result<(Uuid, Arc<InvoiceState>), LedgerError> {
        for attempt in 1..MAX_ATTEMPTS {
            let id = invoice_id(organization, month, attempt);
            let invoice = tx.load(&self.invoices, id).await?.state;
            if invoice.voided().is_none() {
                return Ok((id, invoice));
            }
        }
        Err(LedgerError::TooManyAttempts { month })
    }
}

/// The context of a command that goes with another one, which alone is repeatable.
fn aside(context: &CommandContext) -> CommandContext {
    CommandContext {
        command_id: Uuid::now_v7(),
        idempotency: None,
        causation_id: Some(context.command_id),
        expected: None,
        ..context.clone()
    }
}

/// One at a time changes an account's invoices.
async fn lock(tx: &mut PgTx, organization: Uuid) -> Result<(), LedgerError> {
    let key = format!("invoices of {organization}");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))").bind(key).execute(tx.connection()).await?;
    Ok(())
}

/// The next number. It is given back if the transaction doesn't commit.
async fn take_number(tx: &mut PgTx) -> Result<i64, LedgerError> {
    let take = "update invoice_numbers set last = last + 1 where series = $1 returning last";
    Ok(sqlx::query_scalar(take).bind(SERIES).fetch_one(tx.connection()).await?)
}

fn corrections_of(id: Uuid, invoice: &InvoiceState, settled_in: Uuid) -> Vec<Correction> {
    let month = invoice.drafted().map(|drafted| drafted.month.clone()).unwrap_or_default();
    let settled = invoice.adjustments().iter().filter(|booked| booked.settled_in_id == settled_in);
    let correction = settled.map(|booked| Correction {
        invoice_id: id,
        month: month.clone(),
        meter: booked.meter.clone(),
        plan: booked.plan.clone(),
        plan_version: booked.plan_version,
        amount: booked.amount.clone(),
    });
    correction.collect()
}

/// What corrections come to, in the smallest unit of the currency.
pub(super) fn sum(corrections: &[Correction], currency: Currency) -> Result<BigInt, LedgerError> {
    let mut sum = Amount::zero(currency);
    for correction in corrections {
        sum = sum.plus(&Amount::read(&correction.amount, currency)?);
    }
    Ok(sum.minor().clone())
}

fn frozen(organization: Uuid, number: i64, statement: &Statement, corrections: Vec<Correction>) -> InvoiceFinalized {
    let invoice = &statement.invoice;
    let line = |line: &crate::domain::rating::Line| Line {
        meter: line.meter.as_str().to_owned(),
        unit: line.quantity.unit.symbol().to_owned(),
        plan: line.plan.plan.clone(),
        plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
        metered: line.quantity.metered.to_string(),
        quantity: line.quantity.to_string(),
        amount: line.amount.to_string(),
    };
    let mut days = Vec::new();
    for (day, metered) in &statement.days {
        days.push(Day {
            date: day.date.to_string(),
            start_at: day.span.start(),
            end_at: day.span.end(),
            byte_milliseconds: metered.byte_ms.to_string(),
            run_milliseconds: metered.run_ms.to_string(),
        });
    }
    InvoiceFinalized {
        organization_id: organization,
        number,
        currency: invoice.currency.code().to_owned(),
        lines: invoice.lines.iter().map(line).collect(),
        corrections,
        days,
        rounding: invoice.rounding.cut(DIGITS),
        subtotal: invoice.subtotal.to_string(),
        discount: invoice.discount.to_string(),
        minimum_true_up: invoice.minimum_true_up.to_string(),
        tax: invoice.tax.to_string(),
        total: invoice.total.to_string(),
        credit_applied: invoice.credit_applied.to_string(),
        amount_due: invoice.amount_due.to_string(),
    }
}

impl Ledger {
    /// A month as it would be frozen now: number 0, and with the corrections that are booked for it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn draft(&self, organization: Uuid, month: Month) -> Result<(Statement, InvoiceFinalized), LedgerError> {
        let account = self.account(organization).await?;
        let (id, _) = self.invoice_of(organization, month).await?;
        let corrections = self.corrections(&account, id).await?;
        let corrected = sum(&corrections, account.currency()?)?;
        let statement = self.statement(organization, &account, month, self.now(), &corrected).await?;
        let document = frozen(organization, 0, &statement, corrections);
        Ok((statement, document))
    }
}
