//! Freezing invoices, correcting them and undoing them.
//!
//! The problem: numbers must have no holes, and what comes late for a frozen month must be charged or given back once.
//!
//! The invariant: whatever changes an account's invoices holds the account's lock until it commits. A number is taken by the
//! transaction that commits its document, and by no other: a request that comes again is answered before anything else is done.
//! Before a month is frozen all earlier invoices are compared with what
//! is known now; the differences are booked on them and settled with it.
//!
//! Usage is read before the transaction begins, since a transaction that waits for another connection of its pool can wait for
//! itself. What is read stands on one version of the account, which says what its invoices are; the transaction goes on only if
//! the account is still at that version, and else it is read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use contracts::invoice::InvoiceDrafted;
use epoch::{CommandContext, Executed, Version};
use epoch_postgres::PgTx;
use futures::FutureExt;
use rating::{
    account::{Account, AccountCommand},
    calendar::month::Month,
    invoice::{InvoiceCommand, InvoiceError, InvoiceState},
};
use uuid::Uuid;

use crate::invoicing::{
    draft::{MAX_ATTEMPTS, corrections_of, document, invoice_id, known_now, sum},
    error::LedgerError,
    ledger::Ledger,
    month_usage::{Used, When},
};

/// The series of invoices and credit notes.
const SERIES: &str = "invoice";
/// Why an adjustment is booked.
const LATE: &str = "events were heard after the invoice was finalized";
/// How often usage is read again because the account has changed meanwhile.
const MAX_READINGS: u32 = 5;

/// What freezing a month needs to know of usage.
struct Reading {
    /// The account's, which all of it stands on.
    version: Version,
    /// The month's usage; none when it was frozen already.
    month: Option<Used>,
    /// That of the months whose invoices count, by invoice.
    earlier: BTreeMap<Uuid, Used>,
}

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
        for _ in 0..MAX_READINGS {
            let reading = Arc::new(self.read_for(organization, month).await?);
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

    async fn read_for(&self, organization: Uuid, month: Month) -> Result<Reading, LedgerError> {
        let account = self.accounts.load(organization).await?;
        account.state.currency()?;
        let mut reading = Reading { version: account.version, month: None, earlier: BTreeMap::new() };
        let (_, invoice) = self.invoice_of(organization, month).await?;
        if invoice.finalized().is_some() {
            return Ok(reading);
        }
        let when = When::as_of(self.now());
        let (period, _) = self.period(&account.state, month)?;
        if when.as_of < period.end() {
            return Err(LedgerError::NotOver { month, end: period.end() });
        }
        reading.earlier = self.invoiced_months(organization, &account.state, when).await?;
        reading.month = Some(self.used(organization, &account.state, month, when).await?);
        Ok(reading)
    }

    /// None when what was read is out of date; then nothing is done.
    async fn finalize_in(
        &self,
        tx: &mut PgTx,
        organization: Uuid,
        month: Month,
        reading: &Reading,
        context: &CommandContext,
    ) -> Result<Option<Executed>, LedgerError> {
        lock(tx, organization).await?;
        if let Some(executed) = tx.repeated::<InvoiceError>(context).await? {
            return Ok(Some(executed));
        }
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        if let Some(frozen) = invoice.finalized() {
            // It refuses.
            let again = InvoiceCommand::Finalize(Box::new(frozen.clone()));
            return Ok(Some(tx.execute(&self.invoices, id, &again, context).await?));
        }
        let account = tx.load(&self.accounts, organization).await?;
        let Some(used) = reading.month.clone().filter(|_| account.version == reading.version) else { return Ok(None) };
        let account = account.state;
        let drafted = InvoiceDrafted {
            organization_id: organization,
            month: month.to_string(),
            start_at: used.period.start(),
            end_at: used.period.end(),
            time_zone: used.time_zone.clone(),
        };
        let aside = aside(context);
        tx.execute(&self.invoices, id, &InvoiceCommand::Draft(drafted), &aside).await?;
        let mut corrections = Vec::new();
        for (earlier, used) in &reading.earlier {
            self.adjust_in(tx, &account, *earlier, used, id, &aside).await?;
            corrections.extend(corrections_of(*earlier, &tx.load(&self.invoices, *earlier).await?.state, id));
        }
        let corrected = sum(&corrections, account.currency()?)?;
        let end = used.period.end();
        let statement = used.statement(&account, &corrected)?;
        let number = take_number(tx).await?;
        let frozen = document(organization, number, &statement, corrections);
        let executed = tx.execute(&self.invoices, id, &InvoiceCommand::Finalize(Box::new(frozen)), context).await?;
        let invoiced =
            AccountCommand::RecordInvoice { invoice: id, end, credit_used: statement.invoice.credit_applied };
        tx.execute(&self.accounts, organization, &invoiced, &aside).await?;
        Ok(Some(executed))
    }

    /// Books on a finalized invoice how it differs from what is known now.
    async fn adjust_in(
        &self,
        tx: &mut PgTx,
        account: &Account,
        id: Uuid,
        used: &Used,
        settled_in: Uuid,
        context: &CommandContext,
    ) -> Result<(), LedgerError> {
        let state = tx.load(&self.invoices, id).await?.state;
        let lines = known_now(account, &state, used)?;
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
        if let Some(executed) = tx.repeated::<InvoiceError>(context).await? {
            return Ok(executed);
        }
        let (id, invoice) = self.invoice_in(tx, organization, month).await?;
        let credit_note = if invoice.finalized().is_some() { take_number(tx).await? } else { 0 };
        // What it settled is settled with another invoice, or was given back by the credit note of the invoice it corrects.
        let corrections = invoice.finalized().into_iter().flat_map(|frozen| &frozen.corrections);
        let corrected: BTreeSet<Uuid> = corrections.map(|correction| correction.invoice_id).collect();
        let (mut void, aside) = (Vec::new(), aside(context));
        for earlier in corrected {
            if tx.load(&self.invoices, earlier).await?.state.voided().is_some() {
                void.push(earlier);
            } else {
                tx.execute(&self.invoices, earlier, &InvoiceCommand::Release { settled_in: id }, &aside).await?;
            }
        }
        let void = InvoiceCommand::Void { reason, credit_note, void };
        let executed = tx.execute(&self.invoices, id, &void, context).await?;
        let voided = AccountCommand::RecordVoid { invoice: id };
        tx.execute(&self.accounts, organization, &voided, &aside).await?;
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
pub(super) fn aside(context: &CommandContext) -> CommandContext {
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
