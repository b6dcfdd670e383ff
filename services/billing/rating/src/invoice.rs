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

use std::collections::BTreeMap;

use contracts::invoice::{
    AGGREGATE, AdjustmentBooked, AdjustmentReleased, InvoiceDrafted, InvoiceEvent, InvoiceFinalized, InvoiceVoided,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    money::{
        amount::{Amount, InvalidAmount},
        currency::{Currency, UnknownCurrency},
    },
    rating::rate::{Invoice, InvoiceLine},
    validation::{InvalidInput, text},
};

/// The name of the discount in adjustments.
pub const DISCOUNT: &str = "discount";
/// The name of the true-up to the minimum in adjustments.
pub const MINIMUM: &str = "minimum_true_up";
/// The name of the tax in adjustments.
pub const TAX: &str = "tax";

/// The state of an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceState {
    drafted: Option<InvoiceDrafted>,
    finalized: Option<InvoiceFinalized>,
    voided: Option<InvoiceVoided>,
    adjustments: Vec<AdjustmentBooked>,
}

/// The key of an invoice line or of a derived amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// `storage` or `compute`; or `discount`, `minimum_true_up` or `tax`.
    pub meter: String,
    /// The id of the plan; empty for derived amounts.
    pub plan: String,
    /// The version of the plan; 0 for derived amounts.
    pub plan_version: i32,
}

impl LineKey {
    fn derived(name: &str) -> Self {
        Self { meter: name.to_owned(), plan: String::new(), plan_version: 0 }
    }
}

/// The current amount of a line, or its difference to the charges so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineAmount {
    pub key: LineKey,
    /// The metered amount; 0 for derived amounts.
    pub metered: i128,
    /// The contribution to the total.
    pub amount: Amount,
}

impl LineAmount {
    /// Lists the lines and the derived amounts of an invoice. They sum to the charge for its month.
    #[must_use]
    pub fn all_of(invoice: &Invoice) -> Vec<Self> {
        let line = |line: &InvoiceLine| Self {
            key: LineKey {
                meter: line.meter.as_str().to_owned(),
                plan: line.plan.plan.clone(),
                plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
            },
            metered: line.quantity.metered,
            amount: line.amount.clone(),
        };
        let off = Amount::zero(invoice.currency).minus(&invoice.discount);
        let derived = [(DISCOUNT, off), (MINIMUM, invoice.minimum_true_up.clone()), (TAX, invoice.tax.clone())];
        let derived = derived.map(|(name, amount)| Self { key: LineKey::derived(name), metered: 0, amount });
        invoice.lines.iter().map(line).chain(derived).collect()
    }
}

/// Commands of an invoice.
#[derive(Debug, Clone, PartialEq)]
pub enum InvoiceCommand {
    /// Starts a draft.
    Draft(InvoiceDrafted),
    /// Freezes the invoice and assigns its number.
    Finalize(Box<InvoiceFinalized>),
    /// Voids the invoice; a finalized one is undone by a credit note.
    Void {
        reason: String,
        /// The number of the credit note, if one is needed.
        credit_note: i64,
        /// Void invoices among those that this one corrects. Their credit notes have returned the corrections
        /// already.
        void: Vec<Uuid>,
    },
    /// Releases the adjustments that a void invoice has settled.
    Release {
        /// The void invoice.
        settled_in: Uuid,
    },
    /// Books the differences to the current amounts.
    Adjust {
        /// All current lines and derived amounts.
        lines: Vec<LineAmount>,
        /// The invoice that settles the differences.
        settled_in: Uuid,
        reason: String,
    },
}

/// Reasons an invoice rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    #[error("the invoice does not exist")]
    NotFound,
    #[error("the invoice is finalized under the number {number}")]
    Finalized { number: i64 },
    #[error("the invoice is a draft")]
    Draft,
    #[error("the invoice is void: {reason}")]
    Void { reason: String },
    /// A value of the command is invalid.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
    /// The currency of the invoice is unknown.
    #[error(transparent)]
    Currency(#[from] UnknownCurrency),
    /// A stored amount cannot be parsed.
    #[error(transparent)]
    Amount(#[from] InvalidAmount),
}

type Decision = Result<Vec<InvoiceEvent>, InvoiceError>;

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
mod tests {
    use contracts::invoice::{InvoiceDrafted, InvoiceEvent, InvoiceFinalized, Line};
    use epoch::{Aggregate, Timestamp};
    use uuid::Uuid;

    use super::{InvoiceCommand, InvoiceError, InvoiceState, LineAmount, LineKey};
    use crate::{
        calendar::span::Span,
        money::amount::Amount,
        pricing::standard_plan::FlatPrices,
        rating::{
            rate::{Adjustments, Invoice, rate},
            term::Term,
            usage_amounts::UsageAmounts,
        },
    };

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
            discount_percent: "0".into(),
        }))
    }

    fn adjust(lines: &[(&str, i128, &str)]) -> InvoiceCommand {
        let line = |(meter, metered, amount): &(&str, i128, &str)| LineAmount {
            key: LineKey { meter: (*meter).to_owned(), plan: "p".into(), plan_version: 1 },
            metered: *metered,
            amount: Amount::parse(amount, "EUR".parse().unwrap()).unwrap(),
        };
        let lines = lines.iter().map(line).collect();
        InvoiceCommand::Adjust { lines, settled_in: Uuid::max(), reason: "late".into() }
    }

    #[test]
    fn invoice_is_finalized_once() {
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
    fn same_difference_is_booked_once() {
        let mut invoice = InvoiceState::default();
        apply(&mut invoice, &draft()).unwrap();
        apply(&mut invoice, &finalize(1)).unwrap();
        let mut booked = |lines: &[(&str, i128, &str)]| {
            let events = apply(&mut invoice, &adjust(lines)).unwrap();
            let shown = events.into_iter().map(|event| match event {
                InvoiceEvent::AdjustmentBooked(booked) => {
                    format!("{} {} {}", booked.meter, booked.metered, booked.amount)
                }
                other => panic!("{other:?}"),
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(booked(&[("compute", 10_000, "10.00")]), [""; 0]);
        assert_eq!(booked(&[("compute", 8_000, "8.00")]), ["compute 8000 -2.00"]);
        assert_eq!(booked(&[("compute", 8_000, "8.00")]), [""; 0]);
        assert_eq!(
            booked(&[("compute", 9_000, "9.00"), ("storage", 1, "0.50")]),
            ["compute 9000 1.00", "storage 1 0.50"]
        );
        assert_eq!(booked(&[]), ["compute 0 -9.00", "storage 0 -0.50"], "lines that no longer exist");
    }

    #[test]
    fn derived_amounts_are_adjusted_too() {
        let (euro, price) = (
            "EUR".parse().unwrap(),
            FlatPrices {
                currency: "EUR".parse().unwrap(),
                gb_hour: "0".parse().unwrap(),
                second: "1".parse().unwrap(),
            },
        );
        let of = |seconds: i128, discount: &str, minimum: &str, tax: &str| {
            let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
            let usage = [(Term { span, plan: price.plan().plan.into() }, UsageAmounts::of(0, seconds * 1_000))];
            let adjustments = Adjustments {
                discount_percent: discount.parse().unwrap(),
                minimum: minimum.parse().unwrap(),
                tax_percent: tax.parse().unwrap(),
                ..Adjustments::default()
            };
            rate(&usage, &adjustments).unwrap().unwrap()
        };
        let differences = |before: &Invoice, now: &Invoice| {
            let mut invoice = InvoiceState::default();
            apply(&mut invoice, &draft()).unwrap();
            let InvoiceCommand::Finalize(mut frozen) = finalize(1) else { panic!() };
            frozen.lines[0].plan = "standard".into();
            frozen.lines[0].amount = before.lines[0].amount.to_string();
            (frozen.discount, frozen.minimum_true_up) =
                (before.discount.to_string(), before.minimum_true_up.to_string());
            (frozen.tax, frozen.total) = (before.tax.to_string(), before.total.to_string());
            apply(&mut invoice, &InvoiceCommand::Finalize(frozen)).unwrap();
            let differences = invoice.differences(&LineAmount::all_of(now)).unwrap();
            let sum = differences.iter().fold(Amount::zero(euro), |sum, line| sum.plus(&line.amount));
            assert_eq!(sum, now.total.minus(&before.total));
            differences.iter().map(|line| format!("{} {}", line.key.meter, line.amount)).collect::<Vec<_>>()
        };
        let differ = |seconds: (i128, i128), discount, minimum, tax| {
            differences(&of(seconds.0, discount, minimum, tax), &of(seconds.1, discount, minimum, tax))
        };
        assert_eq!(differ((10, 20), "10", "0", "20"), ["compute 10.00", "discount -1.00", "tax 1.80"]);
        assert_eq!(
            differ((10, 20), "0", "50", "20"),
            ["compute 10.00", "minimum_true_up -10.00"],
            "the minimum is due in any case"
        );
        assert_eq!(differ((60, 20), "0", "50", "0"), ["compute -40.00", "minimum_true_up 30.00"]);
    }

    #[test]
    fn adjustments_of_a_void_invoice_are_released() {
        let mut invoice = InvoiceState::default();
        apply(&mut invoice, &draft()).unwrap();
        apply(&mut invoice, &finalize(1)).unwrap();
        apply(&mut invoice, &adjust(&[("compute", 8_000, "8.00")])).unwrap();
        let release = |settled_in| InvoiceCommand::Release { settled_in };
        assert!(apply(&mut invoice, &release(Uuid::nil())).unwrap().is_empty());
        assert_eq!(apply(&mut invoice, &release(Uuid::max())).unwrap().len(), 1);
        assert!(invoice.adjustments().is_empty());
        assert!(apply(&mut invoice, &release(Uuid::max())).unwrap().is_empty());
        let again = apply(&mut invoice, &adjust(&[("compute", 8_000, "8.00")])).unwrap();
        assert_eq!(again.len(), 1, "the next invoice settles it");
    }

    #[test]
    fn void_of_a_finalized_invoice_needs_a_credit_note() {
        let void = InvoiceCommand::Void { reason: "a mistake".into(), credit_note: 2, void: vec![] };
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
