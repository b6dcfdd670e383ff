//! What an invoice says, frozen or as it would be frozen now.

use std::{collections::BTreeMap, sync::Arc};

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::{Correction, Day, InvoiceFinalized, Line};
use epoch::{Aggregate, Timestamp, Version, store::Streamer as _};
use futures::TryStreamExt;
use rating::{
    account::Account,
    calendar::{month::Month, span::Span},
    invoice::{InvoiceState, LineAmount},
    money::{amount::Amount, currency::Currency},
    pricing::meter::Meter,
    rating::{
        rate::{self, Adjustments},
        term::Term,
        usage_amounts::UsageAmounts,
    },
    validation::InvalidInput,
};
use uuid::Uuid;

use crate::invoicing::{
    error::LedgerError,
    ledger::Ledger,
    month_usage::{Statement, Used, When, adjustments, invoice},
};

/// How many digits of the rounding are shown.
const DIGITS: u8 = 12;

/// How often an invoice of one month can be made again after it was voided.
pub(super) const MAX_ATTEMPTS: u32 = 20;

impl Ledger {
    /// What a month comes to, with corrections of earlier invoices.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn statement(
        &self,
        organization: Uuid,
        account: &Account,
        month: Month,
        when: When,
        corrections: &[Correction],
    ) -> Result<Statement, LedgerError> {
        let corrected = sum(corrections, account.currency()?)?;
        self.used(organization, account, month, when).await?.statement(account, &corrected)
    }

    /// The invoice of a month that counts, or the one that would be made next; and its id.
    ///
    /// # Errors
    /// [`LedgerError`].
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

    /// A month as it would be frozen now: number 0, and with the corrections that it would settle.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn draft(&self, organization: Uuid, month: Month) -> Result<(Statement, InvoiceFinalized), LedgerError> {
        let account = self.account(organization).await?;
        let when = When::as_of(self.now());
        let corrections = self.pending(organization, &account, when).await?;
        let statement = self.statement(organization, &account, month, when, &corrections).await?;
        let document = document(organization, 0, &statement, corrections);
        Ok((statement, document))
    }

    /// What usage of a period comes to: of a month of the account as it would be frozen, or with what was added and taken off when it was,
    /// and the corrections that are settled with it; of any other period its lines alone.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn invoiced(
        &self,
        organization: Uuid,
        period: Span,
        usage: &[(Term, UsageAmounts)],
    ) -> Result<(rate::Invoice, Vec<Correction>), LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        if let (Ok(currency), Some(month)) = (account.currency(), self.month_of(&account, period)?) {
            let (_, state) = self.invoice_of(organization, month).await?;
            let Some(frozen) = state.finalized() else {
                let corrections = self.pending(organization, &account, When::as_of(self.now())).await?;
                let invoice = invoice(&account, usage, &sum(&corrections, currency)?)?;
                return Ok((invoice, corrections));
            };
            let corrected = sum(&frozen.corrections, currency)?;
            let invoice = invoice(&account, usage, &corrected)?;
            let read = |text: &str| Amount::parse(text, currency);
            let invoice = rate::Invoice {
                discount: read(&frozen.discount)?,
                minimum_true_up: read(&frozen.minimum_true_up)?,
                tax: read(&frozen.tax)?,
                credit_applied: read(&frozen.credit_applied)?,
                ..invoice
            };
            return Ok((invoice, frozen.corrections.clone()));
        }
        let invoice = rate::rate(usage, &Adjustments::default())?.ok_or(LedgerError::EmptyPeriod)?;
        Ok((invoice, Vec::new()))
    }

    /// When a period was frozen, if it is a month of the account that was.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn period_frozen_at(&self, organization: Uuid, period: Span) -> Result<Option<Timestamp>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        let Some(month) = self.month_of(&account, period)? else { return Ok(None) };
        let (id, invoice) = self.invoice_of(organization, month).await?;
        if invoice.finalized().is_none() {
            return Ok(None);
        }
        self.frozen_at(id).await
    }

    /// The month of an account that is this period.
    fn month_of(&self, account: &Account, period: Span) -> Result<Option<Month>, LedgerError> {
        let month = self.month_at(account, period.start())?;
        Ok((self.period(account, month)?.0 == period).then_some(month))
    }

    /// What was used in the months whose invoices count, by invoice.
    pub(super) async fn invoiced_months(
        &self,
        organization: Uuid,
        account: &Account,
        when: When,
    ) -> Result<BTreeMap<Uuid, Used>, LedgerError> {
        let mut months = BTreeMap::new();
        for id in account.invoices().keys() {
            let invoice = self.invoices.load(*id).await?.state;
            let Some(drafted) = invoice.drafted() else { continue };
            let month = drafted.month.parse().map_err(|error| InvalidInput::new("month", error))?;
            months.insert(*id, self.used(organization, account, month, when).await?);
        }
        Ok(months)
    }

    /// The corrections of earlier invoices that the next one would settle: how they differ by what is known.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn pending(
        &self,
        organization: Uuid,
        account: &Account,
        when: When,
    ) -> Result<Vec<Correction>, LedgerError> {
        let mut corrections = Vec::new();
        for (id, used) in self.invoiced_months(organization, account, when).await? {
            let invoice = self.invoices.load(id).await?.state;
            for LineAmount { key, amount, .. } in invoice.differences(&known_now(account, &invoice, &used)?)? {
                corrections.push(Correction {
                    invoice_id: id,
                    month: used.month.to_string(),
                    meter: key.meter,
                    plan: key.plan,
                    plan_version: key.plan_version,
                    amount: amount.to_string(),
                });
            }
        }
        Ok(corrections)
    }

    /// When the store took it that an invoice was frozen, by the clock that says when events were recorded.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn frozen_at(&self, invoice: Uuid) -> Result<Option<Timestamp>, LedgerError> {
        let mut events = self.store.stream(InvoiceState::NAME, invoice, Version::ZERO);
        while let Some(event) = events.try_next().await? {
            if &*event.event_name == "InvoiceFinalized" {
                return Ok(Some(event.recorded_at));
            }
        }
        Ok(None)
    }
}

/// What the month of an invoice comes to by what is known now, at the discount it was frozen with.
pub(super) fn known_now(
    account: &Account,
    invoice: &InvoiceState,
    used: &Used,
) -> Result<Vec<LineAmount>, LedgerError> {
    let frozen =
        invoice.finalized().map(|frozen| frozen.discount_percent.as_str()).filter(|percent| !percent.is_empty());
    let mut adjustments = adjustments(account, &used.terms)?;
    if let Some(percent) = frozen {
        adjustments.discount_percent = percent.parse().map_err(|error| InvalidInput::new("discount_percent", error))?;
    }
    let now = rate::rate(&used.terms, &adjustments)?.ok_or(LedgerError::EmptyPeriod)?;
    Ok(LineAmount::all_of(&now))
}

/// The adjustments of an invoice that are settled with another one.
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

/// What corrections come to, in the smallest unit of the currency.
pub(super) fn sum(corrections: &[Correction], currency: Currency) -> Result<BigInt, LedgerError> {
    let mut sum = Amount::zero(currency);
    for correction in corrections {
        sum = sum.plus(&Amount::parse(&correction.amount, currency)?);
    }
    Ok(sum.minor().clone())
}

/// What a statement says as an invoice of this number.
pub(super) fn document(
    organization: Uuid,
    number: i64,
    statement: &Statement,
    corrections: Vec<Correction>,
) -> InvoiceFinalized {
    let invoice = &statement.invoice;
    let line = |line: &rate::InvoiceLine| Line {
        meter: line.meter.as_str().to_owned(),
        unit: line.quantity.unit.symbol().to_owned(),
        plan: line.plan.plan.clone(),
        plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
        metered: line.quantity.metered.to_string(),
        quantity: line.quantity.to_string(),
        amount: line.amount.to_string(),
    };
    let mut days = Vec::new();
    for (day, metered) in &statement.used.days {
        days.push(Day {
            date: day.date.to_string(),
            start_at: day.span.start(),
            end_at: day.span.end(),
            byte_milliseconds: metered.get(Meter::Storage).to_string(),
            run_milliseconds: metered.get(Meter::Compute).to_string(),
        });
    }
    InvoiceFinalized {
        organization_id: organization,
        number,
        currency: invoice.currency.code().to_owned(),
        lines: invoice.lines.iter().map(line).collect(),
        corrections,
        days,
        rounding: invoice.rounding.truncated(DIGITS),
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

/// The same for the same attempt at the same month of the same organization.
pub(super) fn invoice_id(organization: Uuid, month: Month, attempt: u32) -> Uuid {
    Uuid::new_v5(&organization, format!("invoice {month} {attempt}").as_bytes())
}
