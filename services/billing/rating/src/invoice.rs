//! The invoice aggregate: draft, finalization, void, and adjustments of finalized invoices.
//!
//! A finalized invoice is frozen. Later knowledge is booked as adjustments: one for each line and for each
//! derived amount (discount, true-up to the minimum, tax). An adjustment is the difference to everything
//! charged for the month so far, so booking the same amounts again books nothing, and the charges of a month
//! sum to its current amounts.
//!
//! Only a finalized invoice has a number. Its credit note takes the next number of the same series. It
//! returns everything charged for the invoice, except corrections that other credit notes have returned.
//!
//! An adjustment is settled by a later invoice, as one of its corrections. Voiding the settling invoice
//! releases the adjustment, as if it had never been booked. Voiding the adjusted invoice returns its
//! adjustments with its own credit note, and the credit note of the settling invoice leaves them out.
//!
//! Example: October is finalized at 10.00. A late event lowers compute to 8.00, so an adjustment of −2.00 is
//! booked and settled by November. Voiding October returns 8.00.

mod command;
mod line_amount;

pub use command::{InvoiceCommand, InvoiceError};
pub use line_amount::{DISCOUNT, LineAmount, LineKey, MINIMUM, TAX};

use std::collections::BTreeMap;

use contracts::invoice::{
    AGGREGATE, AdjustmentBooked, AdjustmentReleased, InvoiceDrafted, InvoiceEvent, InvoiceFinalized, InvoiceVoided,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    invoice::command::Decision,
    money::{amount::Amount, currency::Currency},
    validation::text,
};

/// The state of an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceState {
    drafted: Option<InvoiceDrafted>,
    finalized: Option<InvoiceFinalized>,
    voided: Option<InvoiceVoided>,
    adjustments: Vec<AdjustmentBooked>,
}

impl InvoiceState {
    /// Returns the data of the draft.
    #[must_use]
    pub fn drafted(&self) -> Option<&InvoiceDrafted> {
        self.drafted.as_ref()
    }

    /// Returns the frozen content of a finalized invoice.
    #[must_use]
    pub fn finalized(&self) -> Option<&InvoiceFinalized> {
        self.finalized.as_ref()
    }

    /// Returns the reason and the credit note of a void invoice.
    #[must_use]
    pub fn voided(&self) -> Option<&InvoiceVoided> {
        self.voided.as_ref()
    }

    /// Lists the adjustments booked since finalization.
    #[must_use]
    pub fn adjustments(&self) -> &[AdjustmentBooked] {
        &self.adjustments
    }

    /// Returns `draft`, `finalized` or `void`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match (&self.voided, &self.finalized) {
            (Some(_), _) => "void",
            (None, Some(_)) => "finalized",
            (None, None) => "draft",
        }
    }

    fn require_active(&self) -> Result<&InvoiceDrafted, InvoiceError> {
        if let Some(voided) = &self.voided {
            return Err(InvoiceError::Void { reason: voided.reason.clone() });
        }
        self.drafted.as_ref().ok_or(InvoiceError::NotFound)
    }

    /// Sums up the charges for the month so far by line and derived amount, including adjustments.
    fn charged(&self, finalized: &InvoiceFinalized) -> Result<BTreeMap<LineKey, Amount>, InvoiceError> {
        let currency: Currency = finalized.currency.parse()?;
        let mut charged: BTreeMap<LineKey, Amount> = BTreeMap::new();
        let mut add = |key: LineKey, amount: Amount| {
            let sum = charged.entry(key).or_insert_with(|| Amount::zero(currency));
            *sum = sum.plus(&amount);
        };
        for line in &finalized.lines {
            let key = LineKey { meter: line.meter.clone(), plan: line.plan.clone(), plan_version: line.plan_version };
            add(key, Amount::parse(&line.amount, currency)?);
        }
        let off = Amount::zero(currency).minus(&Amount::parse(&finalized.discount, currency)?);
        add(LineKey::derived(DISCOUNT), off);
        add(LineKey::derived(MINIMUM), Amount::parse(&finalized.minimum_true_up, currency)?);
        add(LineKey::derived(TAX), Amount::parse(&finalized.tax, currency)?);
        for booked in &self.adjustments {
            add(key_of(booked), Amount::parse(&booked.amount, currency)?);
        }
        Ok(charged)
    }

    /// Returns the nonzero differences between the current amounts and the charges so far.
    ///
    /// # Errors
    /// [`InvoiceError`], also when the invoice is not finalized.
    pub fn differences(&self, now: &[LineAmount]) -> Result<Vec<LineAmount>, InvoiceError> {
        self.require_active()?;
        let Some(finalized) = &self.finalized else { return Err(InvoiceError::Draft) };
        let zero = Amount::zero(finalized.currency.parse()?);
        let charged = self.charged(finalized)?;
        // A line that is charged and no longer exists has a current amount of 0.
        let mut lines: BTreeMap<LineKey, (i128, Amount)> = BTreeMap::new();
        for key in charged.keys() {
            lines.insert(key.clone(), (0, zero.clone()));
        }
        for line in now {
            let sum = lines.entry(line.key.clone()).or_insert_with(|| (0, zero.clone()));
            *sum = (sum.0 + line.metered, sum.1.plus(&line.amount));
        }
        let difference = |(key, (metered, amount)): (LineKey, (i128, Amount))| {
            let amount = amount.minus(charged.get(&key).unwrap_or(&zero));
            LineAmount { key, metered, amount }
        };
        Ok(lines.into_iter().map(difference).filter(|line| !line.amount.is_zero()).collect())
    }

    fn adjust(&self, now: &[LineAmount], settled_in: Uuid, reason: &str) -> Decision {
        let organization_id = self.require_active()?.organization_id;
        text("reason", reason)?;
        let booked = |LineAmount { key, metered, amount }: LineAmount| AdjustmentBooked {
            organization_id,
            meter: key.meter,
            plan: key.plan,
            plan_version: key.plan_version,
            metered: metered.to_string(),
            amount: amount.to_string(),
            settled_in_id: settled_in,
            reason: reason.to_owned(),
        };
        Ok(self.differences(now)?.into_iter().map(|line| booked(line).into()).collect())
    }

    fn void(&self, reason: &str, credit_note: i64, void: &[Uuid]) -> Decision {
        if self.voided.is_some() {
            return Ok(vec![]);
        }
        let organization_id = self.require_active()?.organization_id;
        text("reason", reason)?;
        let amount = self.finalized.as_ref().map(|finalized| self.credit_note_amount(finalized, void)).transpose()?;
        let credit_note = amount.as_ref().map(|_| credit_note);
        let amount = amount.map(|amount| amount.to_string());
        Ok(vec![InvoiceVoided { organization_id, reason: reason.trim().to_owned(), credit_note, amount }.into()])
    }

    /// Returns the amount of the credit note: the total and the adjustments, without corrections that are
    /// returned already.
    fn credit_note_amount(&self, finalized: &InvoiceFinalized, void: &[Uuid]) -> Result<Amount, InvoiceError> {
        let currency = finalized.currency.parse()?;
        let mut amount = Amount::parse(&finalized.total, currency)?;
        for booked in &self.adjustments {
            amount = amount.plus(&Amount::parse(&booked.amount, currency)?);
        }
        for correction in finalized.corrections.iter().filter(|correction| void.contains(&correction.invoice_id)) {
            amount = amount.minus(&Amount::parse(&correction.amount, currency)?);
        }
        Ok(amount)
    }

    fn release(&self, settled_in: Uuid) -> Vec<InvoiceEvent> {
        let released = |booked: &AdjustmentBooked| {
            AdjustmentReleased {
                organization_id: booked.organization_id,
                meter: booked.meter.clone(),
                plan: booked.plan.clone(),
                plan_version: booked.plan_version,
                amount: booked.amount.clone(),
                settled_in_id: settled_in,
            }
            .into()
        };
        self.adjustments.iter().filter(|booked| booked.settled_in_id == settled_in).map(released).collect()
    }
}

fn key_of(booked: &AdjustmentBooked) -> LineKey {
    LineKey { meter: booked.meter.clone(), plan: booked.plan.clone(), plan_version: booked.plan_version }
}

impl Aggregate for InvoiceState {
    const NAME: &'static str = AGGREGATE;
    type Command = InvoiceCommand;
    type Event = InvoiceEvent;
    type Error = InvoiceError;

    fn decide(&self, command: &InvoiceCommand) -> Decision {
        match command {
            InvoiceCommand::Draft(drafted) => match (&self.drafted, &self.voided) {
                (_, Some(voided)) => Err(InvoiceError::Void { reason: voided.reason.clone() }),
                (Some(_), None) => Ok(vec![]),
                (None, None) => Ok(vec![drafted.clone().into()]),
            },
            InvoiceCommand::Finalize(finalized) => {
                self.require_active()?;
                match &self.finalized {
                    Some(frozen) => Err(InvoiceError::Finalized { number: frozen.number }),
                    None => Ok(vec![InvoiceEvent::from((**finalized).clone())]),
                }
            }
            InvoiceCommand::Void { reason, credit_note, void } => self.void(reason, *credit_note, void),
            InvoiceCommand::Release { settled_in } => Ok(self.release(*settled_in)),
            InvoiceCommand::Adjust { lines, settled_in, reason } => self.adjust(lines, *settled_in, reason),
        }
    }

    fn evolve(&mut self, event: &InvoiceEvent) {
        match event {
            InvoiceEvent::InvoiceDrafted(drafted) => self.drafted = Some(drafted.clone()),
            InvoiceEvent::InvoiceFinalized(finalized) => self.finalized = Some(finalized.clone()),
            InvoiceEvent::InvoiceVoided(voided) => self.voided = Some(voided.clone()),
            InvoiceEvent::AdjustmentBooked(booked) => self.adjustments.push(booked.clone()),
            InvoiceEvent::AdjustmentReleased(released) => {
                let AdjustmentReleased { meter, plan, plan_version, settled_in_id, .. } = released;
                self.adjustments.retain(|booked| {
                    (&booked.settled_in_id, &booked.meter, &booked.plan, &booked.plan_version)
                        != (settled_in_id, meter, plan, plan_version)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
