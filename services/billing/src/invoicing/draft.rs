//! Drafts: the content of an invoice, with its line items, corrections and days.

use std::{collections::BTreeMap, sync::Arc};

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::{Correction, Day, InvoiceFinalized, Line};
use epoch::{Aggregate, Timestamp, Version, store::Streamer as _};
use futures::TryStreamExt;
use rating::{
    account::Account,
    calendar::{month::Month, span::Span},
    invoice::{InvoiceState, LineNow},
    money::{amount::Amount, currency::Currency},
    rating::{
        rate::{self, Adjustments},
        term::Term,
        usage_amounts::Metered,
    },
    validation::Refused,
};
use uuid::Uuid;

use crate::invoicing::{
    error::LedgerError,
    ledger::Ledger,
    month_usage::{Cutoff, MonthUsage, Statement, adjustments, invoice},
};

/// Decimal places of the rounding.
const DIGITS: u8 = 12;

/// The maximum number of invoices of one month, all but the last of them void.
pub(super) const MAX_ATTEMPTS: u32 = 20;

impl Ledger {
    /// Prices a month, including corrections of earlier invoices.
    ///
    /// # Errors
    /// [`LedgerError`] when the usage cannot be read or priced.
    pub async fn statement(
        &self,
        organization: Uuid,
        account: &Account,
        month: Month,
        cutoff: Cutoff,
        corrections: &[Correction],
    ) -> Result<Statement, LedgerError> {
        let corrected = sum(corrections, account.currency()?)?;
        self.month_usage(organization, account, month, cutoff).await?.statement(account, &corrected)
    }

    /// Returns the current invoice of a month and its id. Without a current invoice, the id is that of the next one and the state
    /// is empty.
    ///
    /// # Errors
    /// [`LedgerError::TooManyAttempts`] when all invoices of the month are void.
    pub async fn invoice_of(&self, organization: Uuid, month: Month) -> Result<(Uuid, Arc<InvoiceState>), LedgerError> {
        for attempt in 1..MAX_ATTEMPTS {
            let id = invoice_id(organization, month, attempt);
            let invoice = self.invoices.load(id).await?.state;
            if invoice.voided().is_none() {
                return Ok((id, invoice));
            }
        }
        Err(LedgerError::TooManyAttempts { month })
    }

    /// Returns the invoice of a month as if it were finalized now, with the number 0 and the corrections that it would settle.
    ///
    /// # Errors
    /// [`LedgerError`] when the usage cannot be read or priced.
    pub async fn draft(&self, organization: Uuid, month: Month) -> Result<(Statement, InvoiceFinalized), LedgerError> {
        let account = self.account(organization).await?;
        let cutoff = Cutoff::as_of(self.now());
        let corrections = self.pending_corrections(organization, &account, cutoff).await?;
        let statement = self.statement(organization, &account, month, cutoff, &corrections).await?;
        let content = content(organization, 0, &statement, corrections);
        Ok((statement, content))
    }

    /// Prices the usage of a period and returns the invoice with its corrections. For a calendar month of the account, discount,
    /// true-up, tax, credit and corrections are those of its finalized invoice, or of a draft. For any other period, the invoice
    /// has lines only.
    ///
    /// # Errors
    /// [`LedgerError`] when the usage cannot be priced.
    pub async fn invoice_for_period(
        &self,
        organization: Uuid,
        period: Span,
        usage: &[(Term, Metered)],
    ) -> Result<(rate::Invoice, Vec<Correction>), LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        if let (Ok(currency), Some(month)) = (account.currency(), self.month_of(&account, period)?) {
            let (_, state) = self.invoice_of(organization, month).await?;
            let Some(finalized) = state.finalized() else {
                let corrections = self.pending_corrections(organization, &account, Cutoff::as_of(self.now())).await?;
                let invoice = invoice(&account, usage, &sum(&corrections, currency)?)?;
                return Ok((invoice, corrections));
            };
            let corrected = sum(&finalized.corrections, currency)?;
            let invoice = invoice(&account, usage, &corrected)?;
            let parse = |text: &str| Amount::read(text, currency);
            let invoice = rate::Invoice {
                discount: parse(&finalized.discount)?,
                minimum_true_up: parse(&finalized.minimum_true_up)?,
                tax: parse(&finalized.tax)?,
                credit_applied: parse(&finalized.credit_applied)?,
                ..invoice
            };
            return Ok((invoice, finalized.corrections.clone()));
        }
        let invoice = rate::rate(usage, &Adjustments::default())?.ok_or(LedgerError::EmptyPeriod)?;
        Ok((invoice, Vec::new()))
    }

    /// Returns the instant at which the invoice of a period was finalized. `None` unless the period is a calendar month of the
    /// account and its invoice is finalized.
    ///
    /// # Errors
    /// [`LedgerError`] when the account or the invoice cannot be read.
    pub async fn period_finalized_at(
        &self,
        organization: Uuid,
        period: Span,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        let Some(month) = self.month_of(&account, period)? else { return Ok(None) };
        let (id, invoice) = self.invoice_of(organization, month).await?;
        if invoice.finalized().is_none() {
            return Ok(None);
        }
        self.finalized_at(id).await
    }

    /// Returns the calendar month of an account that covers exactly this period.
    fn month_of(&self, account: &Account, period: Span) -> Result<Option<Month>, LedgerError> {
        let month = self.month_at(account, period.start())?;
        Ok((self.period(account, month)?.0 == period).then_some(month))
    }

    /// Reads the usage of all months with a finalized invoice, by invoice.
    pub(super) async fn invoiced_months(
        &self,
        organization: Uuid,
        account: &Account,
        cutoff: Cutoff,
    ) -> Result<BTreeMap<Uuid, MonthUsage>, LedgerError> {
        let mut months = BTreeMap::new();
        for id in account.invoices().keys() {
            let invoice = self.invoices.load(*id).await?.state;
            let Some(drafted) = invoice.drafted() else { continue };
            let month = drafted.month.parse().map_err(|error| Refused::new("month", error))?;
            months.insert(*id, self.month_usage(organization, account, month, cutoff).await?);
        }
        Ok(months)
    }

    /// Returns the corrections that the next invoice would settle: the differences of finalized invoices to the usage known at the
    /// cutoff.
    ///
    /// # Errors
    /// [`LedgerError`] when the usage cannot be read or priced.
    pub async fn pending_corrections(
        &self,
        organization: Uuid,
        account: &Account,
        cutoff: Cutoff,
    ) -> Result<Vec<Correction>, LedgerError> {
        let mut corrections = Vec::new();
        for (id, usage) in self.invoiced_months(organization, account, cutoff).await? {
            let invoice = self.invoices.load(id).await?.state;
            for LineNow { key, amount, .. } in invoice.differences(&recomputed_lines(account, &invoice, &usage)?)? {
                corrections.push(Correction {
                    invoice_id: id,
                    month: usage.month.to_string(),
                    meter: key.meter,
                    plan: key.plan,
                    plan_version: key.plan_version,
                    amount: amount.to_string(),
                });
            }
        }
        Ok(corrections)
    }

    /// Returns the instant at which the finalization of an invoice was recorded, by the clock of the event store, which also
    /// defines the recording times of usage events.
    ///
    /// # Errors
    /// [`LedgerError`] when the event store cannot be read.
    pub async fn finalized_at(&self, invoice: Uuid) -> Result<Option<Timestamp>, LedgerError> {
        let mut events = self.store.stream(InvoiceState::NAME, invoice, Version::ZERO);
        while let Some(event) = events.try_next().await? {
            if &*event.event_name == "InvoiceFinalized" {
                return Ok(Some(event.recorded_at));
            }
        }
        Ok(None)
    }
}

/// Returns the amounts of an invoice's lines, recomputed from `usage` with the discount that the invoice was finalized with.
pub(super) fn recomputed_lines(
    account: &Account,
    invoice: &InvoiceState,
    usage: &MonthUsage,
) -> Result<Vec<LineNow>, LedgerError> {
    let percent = invoice.finalized().map(|finalized| finalized.discount_percent.as_str());
    let mut adjustments = adjustments(account, &usage.terms)?;
    if let Some(percent) = percent.filter(|percent| !percent.is_empty()) {
        adjustments.discount_percent = percent.parse().map_err(|error| Refused::new("discount_percent", error))?;
    }
    let recomputed = rate::rate(&usage.terms, &adjustments)?.ok_or(LedgerError::EmptyPeriod)?;
    Ok(LineNow::all_of(&recomputed))
}

/// Returns the adjustments of an invoice that another invoice settles.
pub(super) fn corrections_of(id: Uuid, invoice: &InvoiceState, settled_in: Uuid) -> Vec<Correction> {
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

/// Returns the sum of corrections, in minor units of the currency.
pub(super) fn sum(corrections: &[Correction], currency: Currency) -> Result<BigInt, LedgerError> {
    let mut sum = Amount::zero(currency);
    for correction in corrections {
        sum = sum.plus(&Amount::read(&correction.amount, currency)?);
    }
    Ok(sum.minor().clone())
}

/// Returns a statement as the content of the invoice with this number.
pub(super) fn content(
    organization: Uuid,
    number: i64,
    statement: &Statement,
    corrections: Vec<Correction>,
) -> InvoiceFinalized {
    let invoice = &statement.invoice;
    let line = |line: &rate::Line| Line {
        meter: line.meter.as_str().to_owned(),
        unit: line.quantity.unit.symbol().to_owned(),
        plan: line.plan.plan.clone(),
        plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
        metered: line.quantity.metered.to_string(),
        quantity: line.quantity.to_string(),
        amount: line.amount.to_string(),
    };
    let mut days = Vec::new();
    for (day, metered) in &statement.usage.days {
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
        discount_percent: statement.adjustments.discount_percent.to_string(),
    }
}

/// Returns the id of an invoice, a function of organization, month and attempt. An attempt follows each void invoice.
pub(super) fn invoice_id(organization: Uuid, month: Month, attempt: u32) -> Uuid {
    Uuid::new_v5(&organization, format!("invoice {month} {attempt}").as_bytes())
}
