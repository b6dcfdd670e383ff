//! The aggregate behind an invoice.
//!
//! The problem: an invoice that was sent can't change, and what is heard later must not be lost.
//!
//! The invariant: drafted, then finalized with a number, then perhaps void; a finalized invoice is frozen. What changes one of
//! its lines later is booked as an adjustment: the difference to what was charged for the line so far, so that booking the same
//! again books nothing. Only a finalized invoice has a number; its credit note has the next one of the same series.

use std::collections::BTreeMap;

use contracts::invoice::{AGGREGATE, AdjustmentBooked, InvoiceDrafted, InvoiceEvent, InvoiceFinalized, InvoiceVoided};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    catalogue::text,
    currency::{Currency, UnknownCurrency},
    money::{Amount, NotAnAmount},
    refused::Refused,
};

/// An invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceState {
    drafted: Option<InvoiceDrafted>,
    finalized: Option<InvoiceFinalized>,
    voided: Option<InvoiceVoided>,
    adjustments: Vec<AdjustmentBooked>,
}

/// Which line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// `storage` or `compute`.
    pub meter: String,
    /// The plan's id.
    pub plan: String,
    /// Its version.
    pub plan_version: i32,
}

/// What a line comes to by what is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineNow {
    /// Which.
    pub key: LineKey,
    /// What is metered.
    pub metered: i128,
    /// What it costs.
    pub amount: Amount,
}

/// What an invoice can be asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum InvoiceCommand {
    /// Begin.
    Draft(InvoiceDrafted),
    /// Freeze, with this number.
    Finalize(Box<InvoiceFinalized>),
    /// Not count any more; a finalized one is undone by a credit note with this number.
    Void {
        /// Why.
        reason: String,
        /// The number of the credit note, if one is needed.
        credit_note: i64,
    },
    /// Book how its lines differ by what is known now.
    Adjust {
        /// All lines by what is known now.
        lines: Vec<LineNow>,
        /// The invoice that the differences are settled with.
        settled_in: Uuid,
        /// Why.
        reason: String,
    },
}

/// Why an invoice says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// There is no such invoice.
    #[error("the invoice does not exist")]
    NotFound,
    /// It is frozen.
    #[error("the invoice is finalized under the number {number}")]
    Finalized {
        /// Its number.
        number: i64,
    },
    /// It is not frozen yet.
    #[error("the invoice is a draft")]
    Draft,
    /// It doesn't count any more.
    #[error("the invoice is void: {reason}")]
    Void {
        /// Why.
        reason: String,
    },
    /// Something can't be used.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its currency isn't known here.
    #[error(transparent)]
    Currency(#[from] UnknownCurrency),
    /// One of its amounts can't be read.
    #[error(transparent)]
    Amount(#[from] NotAnAmount),
}

type Decision = Result<Vec<InvoiceEvent>, InvoiceError>;

impl InvoiceState {
    /// What it was begun with.
    #[must_use]
    pub fn drafted(&self) -> Option<&InvoiceDrafted> {
        self.drafted.as_ref()
    }

    /// What it is, when it is frozen.
    #[must_use]
    pub fn finalized(&self) -> Option<&InvoiceFinalized> {
        self.finalized.as_ref()
    }

    /// How it ended, when it doesn't count any more.
    #[must_use]
    pub fn voided(&self) -> Option<&InvoiceVoided> {
        self.voided.as_ref()
    }

    /// What was booked after it was frozen.
    #[must_use]
    pub fn adjustments(&self) -> &[AdjustmentBooked] {
        &self.adjustments
    }

    /// `draft`, `finalized` or `void`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match (&self.voided, &self.finalized) {
            (Some(_), _) => "void",
            (None, Some(_)) => "finalized",
            (None, None) => "draft",
        }
    }

    fn require_counts(&self) -> Result<&InvoiceDrafted, InvoiceError> {
        if let Some(voided) = &self.voided {
            return Err(InvoiceError::Void { reason: voided.reason.clone() });
        }
        self.drafted.as_ref().ok_or(InvoiceError::NotFound)
    }

    /// What has been charged for each line so far, with its adjustments.
    fn charged(&self, currency: Currency) -> Result<BTreeMap<LineKey, Amount>, InvoiceError> {
        let mut charged: BTreeMap<LineKey, Amount> = BTreeMap::new();
        let lines = self.finalized.iter().flat_map(|finalized| &finalized.lines);
        let lines = lines.map(|line| (&line.meter, &line.plan, line.plan_version, &line.amount));
        let adjustments = self.adjustments.iter();
        let adjustments = adjustments.map(|booked| (&booked.meter, &booked.plan, booked.plan_version, &booked.amount));
        for (meter, plan, plan_version, amount) in lines.chain(adjustments) {
            let key = LineKey { meter: meter.clone(), plan: plan.clone(), plan_version };
            let amount = Amount::read(amount, currency)?;
            let sum = charged.entry(key).or_insert_with(|| Amount::zero(currency));
            *sum = sum.plus(&amount);
        }
        Ok(charged)
    }

    fn adjust(&self, now: &[LineNow], settled_in: Uuid, reason: &str) -> Decision {
        let organization_id = self.require_counts()?.organization_id;
        let Some(finalized) = &self.finalized else { return Err(InvoiceError::Draft) };
        let currency: Currency = finalized.currency.parse()?;
        text("reason", reason)?;
        let charged = self.charged(currency)?;
        // What is charged for and isn't there any more comes to nothing.
        let mut lines: BTreeMap<LineKey, (i128, Amount)> = BTreeMap::new();
        for key in charged.keys() {
            lines.insert(key.clone(), (0, Amount::zero(currency)));
        }
        for line in now {
            let sum = lines.entry(line.key.clone()).or_insert_with(|| (0, Amount::zero(currency)));
            *sum = (sum.0 + line.metered, sum.1.plus(&line.amount));
        }
        let mut events = Vec::new();
        for (key, (metered, amount)) in lines {
            let before = charged.get(&key).cloned().unwrap_or_else(|| Amount::zero(currency));
            let difference = amount.minus(&before);
            if difference.is_zero() {
                continue;
            }
            let booked = AdjustmentBooked {
                organization_id,
                meter: key.meter,
                plan: key.plan,
                plan_version: key.plan_version,
                metered: metered.to_string(),
                amount: difference.to_string(),
                settled_in_id: settled_in,
                reason: reason.to_owned(),
            };
            events.push(booked.into());
        }
        Ok(events)
    }

    fn void(&self, reason: &str, credit_note: i64) -> Decision {
        if self.voided.is_some() {
            return Ok(vec![]);
        }
        let organization_id = self.require_counts()?.organization_id;
        text("reason", reason)?;
        let amount = self.finalized.as_ref().map(|finalized| finalized.total.clone());
        let credit_note = self.finalized.as_ref().map(|_| credit_note);
        Ok(vec![InvoiceVoided { organization_id, reason: reason.trim().to_owned(), credit_note, amount }.into()])
    }
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
                self.require_counts()?;
                match &self.finalized {
                    Some(frozen) => Err(InvoiceError::Finalized { number: frozen.number }),
                    None => Ok(vec![InvoiceEvent::from((**finalized).clone())]),
                }
            }
            InvoiceCommand::Void { reason, credit_note } => self.void(reason, *credit_note),
            InvoiceCommand::Adjust { lines, settled_in, reason } => self.adjust(lines, *settled_in, reason),
        }
    }

    fn evolve(&mut self, event: &InvoiceEvent) {
        match event {
            InvoiceEvent::InvoiceDrafted(drafted) => self.drafted = Some(drafted.clone()),
            InvoiceEvent::InvoiceFinalized(finalized) => self.finalized = Some(finalized.clone()),
            InvoiceEvent::InvoiceVoided(voided) => self.voided = Some(voided.clone()),
            InvoiceEvent::AdjustmentBooked(booked) => self.adjustments.push(booked.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use contracts::invoice::{InvoiceDrafted, InvoiceEvent, InvoiceFinalized, Line};
    use epoch::{Aggregate, Timestamp};
    use uuid::Uuid;

    use super::{InvoiceCommand, InvoiceError, InvoiceState, LineKey, LineNow};
    use crate::domain::money::Amount;

    fn apply(invoice: &mut InvoiceState, command: &InvoiceCommand) -> Result<Vec<InvoiceEvent>, InvoiceError> {
        let events = invoice.decide(command)?;
        events.iter().for_each(|event| invoice.evolve(event));
        Ok(events)
    }

    fn draft() -> InvoiceCommand {
        InvoiceCommand::Draft(InvoiceDrafted {
            organization_id: Uuid::nil(),
            month: "2025-03".into(),
            start_at: Timestamp::from_millis(0),
            end_at: Timestamp::from_millis(1),
            time_zone: "UTC".into(),
        })
    }

    fn finalize(number: i64) -> InvoiceCommand {
        let line = Line {
            meter: "compute".into(),
            unit: "s".into(),
            plan: "p".into(),
            plan_version: 1,
            metered: "10000".into(),
            quantity: "10".into(),
            amount: "10.00".into(),
        };
        let text = || "10.00".to_owned();
        InvoiceCommand::Finalize(Box::new(InvoiceFinalized {
            organization_id: Uuid::nil(),
            number,
            currency: "EUR".into(),
            lines: vec![line],
            corrections: vec![],
            days: vec![],
            rounding: "0".into(),
            subtotal: text(),
            discount: "0.00".into(),
            minimum_true_up: "0.00".into(),
            tax: "0.00".into(),
            total: text(),
            credit_applied: "0.00".into(),
            amount_due: text(),
        }))
    }

    fn adjust(lines: &[(&str, i128, &str)]) -> InvoiceCommand {
        let line = |(meter, metered, amount): &(&str, i128, &str)| LineNow {
            key: LineKey { meter: (*meter).to_owned(), plan: "p".into(), plan_version: 1 },
            metered: *metered,
            amount: Amount::read(amount, "EUR".parse().unwrap()).unwrap(),
        };
        let lines = lines.iter().map(line).collect();
        InvoiceCommand::Adjust { lines, settled_in: Uuid::max(), reason: "late".into() }
    }

    #[test]
    fn is_frozen_once() {
        let mut invoice = InvoiceState::default();
        assert_eq!(apply(&mut invoice, &finalize(1)), Err(InvoiceError::NotFound));
        apply(&mut invoice, &draft()).unwrap();
        assert_eq!((apply(&mut invoice, &draft()).unwrap().len(), invoice.status()), (0, "draft"));
        assert_eq!(apply(&mut invoice, &adjust(&[])), Err(InvoiceError::Draft));
        apply(&mut invoice, &finalize(7)).unwrap();
        assert_eq!(apply(&mut invoice, &finalize(8)), Err(InvoiceError::Finalized { number: 7 }));
        assert_eq!(invoice.status(), "finalized");
    }

    #[test]
    fn the_same_difference_is_booked_once() {
        let mut invoice = InvoiceState::default();
        apply(&mut invoice, &draft()).unwrap();
        apply(&mut invoice, &finalize(1)).unwrap();
        let mut booked = |lines: &[(&str, i128, &str)]| {
            let events = apply(&mut invoice, &adjust(lines)).unwrap();
            let told = events.into_iter().map(|event| match event {
                InvoiceEvent::AdjustmentBooked(booked) => {
                    format!("{} {} {}", booked.meter, booked.metered, booked.amount)
                }
                other => panic!("{other:?}"),
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(booked(&[("compute", 10_000, "10.00")]), [""; 0]);
        assert_eq!(booked(&[("compute", 8_000, "8.00")]), ["compute 8000 -2.00"]);
        assert_eq!(booked(&[("compute", 8_000, "8.00")]), [""; 0]);
        assert_eq!(
            booked(&[("compute", 9_000, "9.00"), ("storage", 1, "0.50")]),
            ["compute 9000 1.00", "storage 1 0.50"]
        );
        assert_eq!(booked(&[]), ["compute 0 -9.00", "storage 0 -0.50"], "what isn't there any more");
    }

    #[test]
    fn a_draft_goes_without_a_number_and_a_finalized_one_by_credit_note() {
        let void = InvoiceCommand::Void { reason: "a mistake".into(), credit_note: 2 };
        let mut drafted = InvoiceState::default();
        apply(&mut drafted, &draft()).unwrap();
        apply(&mut drafted, &void).unwrap();
        assert_eq!(drafted.voided().unwrap().credit_note, None);
        let mut frozen = InvoiceState::default();
        apply(&mut frozen, &draft()).unwrap();
        apply(&mut frozen, &finalize(1)).unwrap();
        apply(&mut frozen, &void).unwrap();
        let voided = frozen.voided().unwrap();
        assert_eq!((voided.credit_note, voided.amount.as_deref()), (Some(2), Some("10.00")));
        assert!(apply(&mut frozen, &void).unwrap().is_empty());
        assert!(matches!(apply(&mut frozen, &adjust(&[])), Err(InvoiceError::Void { .. })));
    }
}
