//! Finalizing, correcting and voiding invoices.
//!
//! Invoice numbers must be gapless, and late events of a finalized month must be charged or credited exactly once.
//!
//! - A transaction that changes an account's invoices holds the account's advisory lock until it commits.
//! - The transaction that commits a document takes the document's number. A repeated command returns its first result before it
//!   takes a number.
//! - Before a month is finalized, all earlier invoices are compared with the usage known now. The differences are booked on them
//!   as adjustments, and the new invoice settles them.
//!
//! Usage is read before the transaction begins, because a transaction that waits for another connection of its pool can deadlock
//! with itself. The reading belongs to one version of the account, which determines the account's invoices. The transaction
//! continues only if the account is still at that version. Otherwise the usage is read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use contracts::invoice::InvoiceDrafted;
use epoch::{CommandContext, ExecutionOutcome, Version};
use epoch_postgres::PgTx;
use futures::FutureExt;
use rating::{
    account::{Account, AccountCommand},
    calendar::month::Month,
    invoice::{InvoiceCommand, InvoiceError, InvoiceState},
};
use uuid::Uuid;

use crate::invoicing::{
    context::secondary,
    draft::{MAX_ATTEMPTS, content, corrections_of, invoice_id, recomputed_lines, sum},
    error::LedgerError,
    ledger::Ledger,
    month_usage::{Cutoff, MonthUsage},
};

/// The number series of invoices and credit notes.
const SERIES: &str = "invoice";
/// The reason of adjustments. It is stored and shown to customers.
const LATE_EVENTS: &str = "events were heard after the invoice was finalized";
/// The maximum number of readings of usage, when the account changes between reading and transaction.
const MAX_READINGS: u32 = 5;

/// The usage that finalizing a month needs.
struct Reading {
    /// The version of the account that the reading belongs to.
    version: Version,
    /// The usage of the month, or `None` when its invoice is finalized already.
    month: Option<MonthUsage>,
    /// The usage of months with a finalized invoice, by invoice.
    earlier: BTreeMap<Uuid, MonthUsage>,
}

impl Ledger {
    /// Finalizes a month's invoice and gives it the next number.
    ///
    /// # Errors
    /// [`LedgerError::NotOver`] before the end of the month; [`LedgerError::Changing`] when the account keeps changing.
    pub async fn finalize(
        &self,
        organization: Uuid,
        month: Month,
        context: &CommandContext,
    ) -> Result<ExecutionOutcome, LedgerError> {
        for _ in 0..MAX_READINGS {
            let reading = Arc::new(self.read_usage(organization, month).await?);
            let (ledger, context) = (self.clone(), context.clone());
            let committed = self.store.transaction(move |tx| {
                let (ledger, reading, context) = (ledger.clone(), Arc::clone(&reading), context.clone());
                async move { ledger.finalize_in(tx, organization, month, &reading, &context).await }.boxed()
            });
            if let Some(executed) = committed.await? {
                return Ok(executed);
            }
        }
        Err(LedgerError::Changing)
    }

    /// Voids a month's invoice. A finalized invoice is reversed by a credit note with the next number.
    ///
    /// # Errors
    /// [`LedgerError::Invoice`] when the month has no invoice.
    pub async fn void(
        &self,
        organization: Uuid,
        month: Month,
        reason: &str,
        context: &CommandContext,
    ) -> Result<ExecutionOutcome, LedgerError> {
        let (ledger, context, reason) = (self.clone(), context.clone(), reason.to_owned());
        let committed = self.store.transaction(move |tx| {
            let (ledger, context, reason) = (ledger.clone(), context.clone(), reason.clone());
            async move { ledger.void_in(tx, organization, month, reason, &context).await }.boxed()
        });
        committed.await
    }

    async fn read_usage(&self, organization: Uuid, month: Month) -> Result<Reading, LedgerError> {
        let account = self.accounts.load(organization).await?;
        account.state.currency()?;
        let mut reading = Reading { version: account.version, month: None, earlier: BTreeMap::new() };
        let (_, invoice) = self.invoice_of(organization, month).await?;
        if invoice.finalized().is_some() {
            return Ok(reading);
        }
        let cutoff = Cutoff::as_of(self.now());
        let (period, _) = self.period(&account.state, month)?;
        if cutoff.as_of < period.end() {
            return Err(LedgerError::NotOver { month, end: period.end() });
        }
        reading.earlier = self.invoiced_months(organization, &account.state, cutoff).await?;
        reading.month = Some(self.month_usage(organization, &account.state, month, cutoff).await?);
        Ok(reading)
    }

    /// Finalizes in a transaction. Returns `None`, and changes nothing, when the reading is out of date.
    async fn finalize_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        month: Month,
        reading: &Reading,
        context: &CommandContext,
    ) -> Result<Option<ExecutionOutcome>, LedgerError> {
        lock(tx, organization).await?;
        if let Some(executed) = tx.find_repeated::<InvoiceError>(context).await? {
            return Ok(Some(executed));
        }
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        if let Some(finalized) = invoice.finalized() {
            // The aggregate rejects the second finalization.
            let again = InvoiceCommand::Finalize(Box::new(finalized.clone()));
            return Ok(Some(tx.execute(&self.invoices, id, &again, context).await?));
        }
        let account = tx.load(&self.accounts, organization).await?;
        let Some(usage) = reading.month.clone().filter(|_| account.version == reading.version) else {
            return Ok(None);
        };
        let account = account.state;
        let drafted = InvoiceDrafted {
            organization_id: organization,
            month: month.to_string(),
            start_at: usage.period.start(),
            end_at: usage.period.end(),
            time_zone: usage.time_zone.clone(),
        };
        let secondary = secondary(context);
        tx.execute(&self.invoices, id, &InvoiceCommand::Draft(drafted), &secondary).await?;
        let mut corrections = Vec::new();
        for (earlier, earlier_usage) in &reading.earlier {
            self.adjust_in(tx, &account, *earlier, earlier_usage, id, &secondary).await?;
            corrections.extend(corrections_of(*earlier, &tx.load(&self.invoices, *earlier).await?.state, id));
        }
        let corrected = sum(&corrections, account.currency()?)?;
        let end = usage.period.end();
        let statement = usage.statement(&account, &corrected)?;
        let number = take_number(tx).await?;
        let finalized = content(organization, number, &statement, corrections);
        let executed = tx.execute(&self.invoices, id, &InvoiceCommand::Finalize(Box::new(finalized)), context).await?;
        let invoiced =
            AccountCommand::RecordInvoice { invoice: id, end, credit_used: statement.invoice.credit_applied };
        tx.execute(&self.accounts, organization, &invoiced, &secondary).await?;
        Ok(Some(executed))
    }

    /// Books the differences of a finalized invoice to the usage known now as adjustments.
    async fn adjust_in(
        &self,
        tx: &mut PgTx,
        account: &Account,
        id: Uuid,
        usage: &MonthUsage,
        settled_in: Uuid,
        context: &CommandContext,
    ) -> Result<(), LedgerError> {
        let state = tx.load(&self.invoices, id).await?.state;
        let lines = recomputed_lines(account, &state, usage)?;
        let adjust = InvoiceCommand::Adjust { lines, settled_in, reason: LATE_EVENTS.to_owned() };
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
    ) -> Result<ExecutionOutcome, LedgerError> {
        lock(tx, organization).await?;
        if let Some(executed) = tx.find_repeated::<InvoiceError>(context).await? {
            return Ok(executed);
        }
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        let credit_note = if invoice.finalized().is_some() { take_number(tx).await? } else { 0 };
        // The next invoice settles the released corrections. Those of void invoices were refunded by their credit notes.
        let corrections = invoice.finalized().into_iter().flat_map(|finalized| &finalized.corrections);
        let corrected: BTreeSet<Uuid> = corrections.map(|correction| correction.invoice_id).collect();
        let (mut void, secondary) = (Vec::new(), secondary(context));
        for earlier in corrected {
            if tx.load(&self.invoices, earlier).await?.state.voided().is_some() {
                void.push(earlier);
            } else {
                tx.execute(&self.invoices, earlier, &InvoiceCommand::Release { settled_in: id }, &secondary).await?;
            }
        }
        let void = InvoiceCommand::Void { reason, credit_note, void };
        let executed = tx.execute(&self.invoices, id, &void, context).await?;
        let voided = AccountCommand::RecordVoid { invoice: id };
        tx.execute(&self.accounts, organization, &voided, &secondary).await?;
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

/// Locks an account's invoices until the transaction ends.
async fn lock(tx: &mut PgTx, organization: Uuid) -> Result<(), LedgerError> {
    let key = format!("invoices of {organization}");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))").bind(key).execute(tx.connection()).await?;
    Ok(())
}

/// Takes the next number of the series. A rolled-back transaction returns it.
async fn take_number(tx: &mut PgTx) -> Result<i64, LedgerError> {
    let take = "update invoice_numbers set last = last + 1 where series = $1 returning last";
    Ok(sqlx::query_scalar(take).bind(SERIES).fetch_one(tx.connection()).await?)
}
