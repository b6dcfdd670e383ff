//! What happens to an invoice.
//!
//! The problem: events come late, and an invoice that was sent can't change.
//!
//! The invariant: a draft is what usage makes it; a finalized invoice is frozen and has a number; what changes it later is booked
//! as an adjustment of one of its lines, or of what follows from them, and settled with a later invoice. Amounts are decimals of the
//! invoice's currency.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The aggregate's name.
pub const AGGREGATE: &str = "invoice";

epoch::events! {
    /// What happens to an invoice.
    pub enum InvoiceEvent {
        InvoiceDrafted = [schema!("invoice/InvoiceDrafted")],
        InvoiceFinalized = [schema!("invoice/InvoiceFinalized"), schema!("invoice/InvoiceFinalized.1")],
        InvoiceVoided = [schema!("invoice/InvoiceVoided")],
        AdjustmentBooked = [schema!("invoice/AdjustmentBooked")],
        AdjustmentReleased = [schema!("invoice/AdjustmentReleased")],
    }
}

/// What a meter costs under a version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `storage` or `compute`.
    pub meter: String,
    /// `GB.h`, `GiB.h` or `s`.
    pub unit: String,
    /// The plan's id.
    pub plan: String,
    /// Its version.
    pub plan_version: i32,
    /// What was metered, in byte-milliseconds or milliseconds, as an integer in digits.
    pub metered: String,
    /// The same in units, as a decimal that is cut after 12 digits.
    pub quantity: String,
    /// What it costs.
    pub amount: String,
}

/// A day of the account's time zone, clipped to the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// As `2026-03-29`.
    pub date: String,
    /// Its first instant.
    pub start_at: Timestamp,
    /// The first instant after it.
    pub end_at: Timestamp,
    /// What was stored for how long, as an integer in digits.
    pub byte_milliseconds: String,
    /// How long jobs ran, as an integer in digits.
    pub run_milliseconds: String,
}

/// An adjustment of an earlier invoice that is settled with this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// The corrected invoice.
    pub invoice_id: Uuid,
    /// Its month, as `2026-03`.
    pub month: String,
    /// The corrected line's meter.
    pub meter: String,
    /// The corrected line's plan.
    pub plan: String,
    /// The corrected line's version.
    pub plan_version: i32,
    /// The difference.
    pub amount: String,
}

/// An invoice was begun for a month. Until it is finalized it is what usage makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceDrafted {
    /// Whose invoice it is.
    pub organization_id: Uuid,
    /// The month, as `2026-03`.
    pub month: String,
    /// The period's first instant.
    pub start_at: Timestamp,
    /// The first instant after the period.
    pub end_at: Timestamp,
    /// The IANA time zone of its days.
    pub time_zone: String,
}

/// The invoice is frozen and has its number. Nothing of it changes any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceFinalized {
    /// Whose invoice it is.
    pub organization_id: Uuid,
    /// Its number: those of all invoices of the installation follow each other without a hole.
    pub number: i64,
    /// What all amounts are in, as a code of ISO 4217.
    pub currency: String,
    /// What is charged for.
    pub lines: Vec<Line>,
    /// What is settled of earlier invoices.
    pub corrections: Vec<Correction>,
    /// The days of the period.
    pub days: Vec<Day>,
    /// The sum of the lines without the exact sum, as a decimal that is cut after 12 digits.
    pub rounding: String,
    /// The sum of the lines.
    pub subtotal: String,
    /// What is taken off.
    pub discount: String,
    /// What is missing to the minimum.
    pub minimum_true_up: String,
    /// What is put on.
    pub tax: String,
    /// The subtotal without the discount, with what is missing to the minimum, tax and corrections.
    pub total: String,
    /// What of the account's credit is used up.
    pub credit_applied: String,
    /// What is left to pay.
    pub amount_due: String,
    /// Hundredths of the subtotal that are taken off; empty where it was not written yet.
    pub discount_percent: String,
}

/// The invoice doesn't count any more. A finalized one is undone by a credit note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceVoided {
    /// Whose invoice it is.
    pub organization_id: Uuid,
    /// Why.
    pub reason: String,
    /// The number of the credit note, of the same series; `None` when the invoice was a draft.
    pub credit_note: Option<i64>,
    /// What the credit note gives back; `None` when the invoice was a draft.
    pub amount: Option<String>,
}

/// What was heard after the invoice was finalized changes one of its lines, or what follows from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentBooked {
    /// Whose invoice it is.
    pub organization_id: Uuid,
    /// The line's meter; or what follows from the lines: `discount`, `minimum_true_up` or `tax`.
    pub meter: String,
    /// The line's plan; empty for what follows from the lines.
    pub plan: String,
    /// The line's version; 0 for what follows from the lines.
    pub plan_version: i32,
    /// What is metered now, in byte-milliseconds or milliseconds, as an integer in digits.
    pub metered: String,
    /// The difference to what was charged so far.
    pub amount: String,
    /// The invoice it is settled with.
    pub settled_in_id: Uuid,
    /// Why.
    pub reason: String,
}

/// The invoice that an adjustment was settled with is void: it isn't booked any more, and the next invoice settles what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentReleased {
    /// Whose invoice it is.
    pub organization_id: Uuid,
    /// The adjustment's meter.
    pub meter: String,
    /// The adjustment's plan.
    pub plan: String,
    /// The adjustment's version.
    pub plan_version: i32,
    /// What had been booked.
    pub amount: String,
    /// The void invoice.
    pub settled_in_id: Uuid,
}
