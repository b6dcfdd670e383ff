//! What an invoice says, frozen or as it would be frozen now.

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::{Correction, Day, InvoiceFinalized, Line};
use epoch::{Aggregate, Timestamp, Version, store::Streamer as _};
use futures::TryStreamExt;
use uuid::Uuid;

use super::{Ledger, LedgerError, Statement, When};
use crate::domain::{
    account::Account,
    currency::Currency,
    invoice::InvoiceState,
    money::Amount,
    month::Month,
    rating::{self, Adjustments, Metered, Term},
    span::Span,
};

/// How many digits of the rounding are shown.
const DIGITS: u8 = 12;

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
        let used = self.used(organization, &account, month, When::as_of(self.now())).await?;
        let statement = used.statement(&account, &corrected)?;
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
        usage: &[(Term, Metered)],
    ) -> Result<(rating::Invoice, Vec<Correction>), LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        if let (Ok(currency), Some(month)) = (account.currency(), self.month_of(&account, period)?) {
            let (id, state) = self.invoice_of(organization, month).await?;
            let Some(frozen) = state.finalized() else {
                let corrections = self.corrections(&account, id).await?;
                let invoice = super::invoice(&account, usage, &sum(&corrections, currency)?)?;
                return Ok((invoice, corrections));
            };
            let corrected = sum(&frozen.corrections, currency)?;
            let invoice = super::invoice(&account, usage, &corrected)?;
            let read = |text: &str| Amount::read(text, currency);
            let invoice = rating::Invoice {
                discount: read(&frozen.discount)?,
                minimum_true_up: read(&frozen.minimum_true_up)?,
                tax: read(&frozen.tax)?,
                credit_applied: read(&frozen.credit_applied)?,
                ..invoice
            };
            return Ok((invoice, frozen.corrections.clone()));
        }
        let invoice = rating::rate(usage, &Adjustments::default())?.ok_or(LedgerError::EmptyPeriod)?;
        Ok((invoice, Vec::new()))
    }

    /// The month of an account that is this period.
    fn month_of(&self, account: &Account, period: Span) -> Result<Option<Month>, LedgerError> {
        let month = self.month_at(account, period.start())?;
        Ok((self.period(account, month)?.0 == period).then_some(month))
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
        sum = sum.plus(&Amount::read(&correction.amount, currency)?);
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
    let line = |line: &rating::Line| Line {
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
