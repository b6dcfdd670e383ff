//! The aggregate behind an invoice.
//!
//! The problem: an invoice that was sent can't change, and what is heard later must not be lost.
//!
//! The invariant: drafted, then finalized with a number, then perhaps void; a finalized invoice is frozen. What changes it later is
//! booked as adjustments, one for each line and for each of what follows from the lines (its discount, what is missing to its minimum,
//! its tax): the difference to what was charged for it so far. So booking the same again books nothing, and all that was charged for a
//! month is what it comes to. Only a finalized invoice has a number; its credit note has the next one of the same series, and gives back
//! all that was charged for the invoice and is not given back otherwise.
//!
//! An adjustment is settled with a later invoice, as one of its corrections. When that one is void, the adjustment is released: it
//! counts as never booked. When the adjusted invoice is void, its credit note gives the adjustments back too, and the credit note
//! of the invoice that settled them doesn't.

use std::collections::BTreeMap;

use contracts::invoice::{
    AGGREGATE, AdjustmentBooked, AdjustmentReleased, InvoiceDrafted, InvoiceEvent, InvoiceFinalized, InvoiceVoided,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    money::{
        amount::{Amount, NotAnAmount},
        currency::{Currency, UnknownCurrency},
    },
    rating::rate::{Invoice, Line},
    validation::{Refused, text},
};

/// What is taken off the sum of the lines, as adjustments name it.
pub const DISCOUNT: &str = "discount";
/// What is missing to the minimum, as adjustments name it.
pub const MINIMUM: &str = "minimum_true_up";
/// What is put on, as adjustments name it.
pub const TAX: &str = "tax";

/// An invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceState {
    drafted: Option<InvoiceDrafted>,
    finalized: Option<InvoiceFinalized>,
    voided: Option<InvoiceVoided>,
    adjustments: Vec<AdjustmentBooked>,
}

/// Which line of an invoice, or what of that which follows from the lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// `storage` or `compute`; or `discount`, `minimum_true_up` or `tax`.
    pub meter: String,
    /// The plan's id; empty for what follows from the lines.
    pub plan: String,
    /// Its version; 0 for what follows from the lines.
    pub plan_version: i32,
}

impl LineKey {
    fn following(name: &str) -> Self {
        Self { meter: name.to_owned(), plan: String::new(), plan_version: 0 }
    }
}

/// What a line comes to by what is known now, or how it differs from what was charged so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineNow {
    /// Which.
    pub key: LineKey,
    /// What is metered now; nothing of what follows from the lines.
    pub metered: i128,
    /// What it adds to the total.
    pub amount: Amount,
}

impl LineNow {
    /// The lines of an invoice, and what follows from them: together what it charges for its month.
    #[must_use]
    pub fn all_of(invoice: &Invoice) -> Vec<Self> {
        let line = |line: &Line| Self {
            key: LineKey {
                meter: line.meter.as_str().to_owned(),
                plan: line.plan.plan.clone(),
                plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
            },
            metered: line.quantity.metered,
            amount: line.amount.clone(),
        };
        let off = Amount::zero(invoice.currency).minus(&invoice.discount);
        let following = [(DISCOUNT, off), (MINIMUM, invoice.minimum_true_up.clone()), (TAX, invoice.tax.clone())];
        let following = following.map(|(name, amount)| Self { key: LineKey::following(name), metered: 0, amount });
        invoice.lines.iter().map(line).chain(following).collect()
    }
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
        /// The invoices whose corrections it settles that are void themselves: their credit notes gave them back.
        void: Vec<Uuid>,
    },
    /// Take back the adjustments that were settled with an invoice that is void.
    Release {
        /// The void invoice.
        settled_in: Uuid,
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

    /// What has been charged for the month so far, with its adjustments: line by line, and what follows from them.
    fn charged(&self, finalized: &InvoiceFinalized) -> Result<BTreeMap<LineKey, Amount>, InvoiceError> {
        let currency: Currency = finalized.currency.parse()?;
        let mut charged: BTreeMap<LineKey, Amount> = BTreeMap::new();
        let mut add = |key: LineKey, amount: Amount| {
            let sum = charged.entry(key).or_insert_with(|| Amount::zero(currency));
            *sum = sum.plus(&amount);
        };
        for line in &finalized.lines {
            let key = LineKey { meter: line.meter.clone(), plan: line.plan.clone(), plan_version: line.plan_version };
            add(key, Amount::read(&line.amount, currency)?);
        }
        let off = Amount::zero(currency).minus(&Amount::read(&finalized.discount, currency)?);
        add(LineKey::following(DISCOUNT), off);
        add(LineKey::following(MINIMUM), Amount::read(&finalized.minimum_true_up, currency)?);
        add(LineKey::following(TAX), Amount::read(&finalized.tax, currency)?);
        for booked in &self.adjustments {
            add(key_of(booked), Amount::read(&booked.amount, currency)?);
        }
        Ok(charged)
    }

    /// How a finalized invoice differs by what is known now, line by line; nothing where it doesn't.
    ///
    /// # Errors
    /// [`InvoiceError`], also when it isn't finalized.
    pub fn differences(&self, now: &[LineNow]) -> Result<Vec<LineNow>, InvoiceError> {
        self.require_counts()?;
        let Some(finalized) = &self.finalized else { return Err(InvoiceError::Draft) };
        let zero = Amount::zero(finalized.currency.parse()?);
        let charged = self.charged(finalized)?;
        // What is charged for and isn't there any more comes to nothing.
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
            LineNow { key, metered, amount }
        };
        Ok(lines.into_iter().map(difference).filter(|line| !line.amount.is_zero()).collect())
    }

    fn adjust(&self, now: &[LineNow], settled_in: Uuid, reason: &str) -> Decision {
        let organization_id = self.require_counts()?.organization_id;
        text("reason", reason)?;
        let booked = |LineNow { key, metered, amount }: LineNow| AdjustmentBooked {
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
        let organization_id = self.require_counts()?.organization_id;
        text("reason", reason)?;
        let amount = self.finalized.as_ref().map(|finalized| self.given_back(finalized, void)).transpose()?;
        let credit_note = amount.as_ref().map(|_| credit_note);
        let amount = amount.map(|amount| amount.to_string());
        Ok(vec![InvoiceVoided { organization_id, reason: reason.trim().to_owned(), credit_note, amount }.into()])
    }

    /// What a credit note gives back: the total and what was charged for it later, without corrections that were given back already.
    fn given_back(&self, finalized: &InvoiceFinalized, void: &[Uuid]) -> Result<Amount, InvoiceError> {
        let currency = finalized.currency.parse()?;
        let mut amount = Amount::read(&finalized.total, currency)?;
        for booked in &self.adjustments {
            amount = amount.plus(&Amount::read(&booked.amount, currency)?);
        }
        for correction in finalized.corrections.iter().filter(|correction| void.contains(&correction.invoice_id)) {
            amount = amount.minus(&Amount::read(&correction.amount, currency)?);
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
                self.require_counts()?;
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

    use super::{InvoiceCommand, InvoiceError, InvoiceState, LineKey, LineNow};
    use crate::{
        calendar::span::Span,
        money::amount::Amount,
        pricing::standard_plan::FlatPrices,
        rating::{
            rate::{Adjustments, Invoice, rate},
            term::Term,
            usage_amounts::Metered,
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
    fn what_follows_from_the_lines_is_adjusted_too() {
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
            let usage =
                [(Term { span, plan: price.plan().plan.into() }, Metered { byte_ms: 0, run_ms: seconds * 1_000 })];
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
            let differences = invoice.differences(&LineNow::all_of(now)).unwrap();
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
            "the minimum is due anyway"
        );
        assert_eq!(differ((60, 20), "0", "50", "0"), ["compute -40.00", "minimum_true_up 30.00"]);
    }

    #[test]
    fn what_a_void_invoice_settled_is_released() {
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
    fn a_draft_goes_without_a_number_and_a_finalized_one_by_credit_note() {
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
