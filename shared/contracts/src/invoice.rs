//! Events of invoices.
//!
//! A draft follows the usage. A finalized invoice has a number and is immutable. Usage that is recorded later is booked as an adjustment
//! of a line, or of an amount derived from the lines, and settled with a later invoice. Amounts are decimals of the invoice's currency.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate.
pub const AGGREGATE: &str = "invoice";

epoch::events! {
    /// An event of an invoice.
    pub enum InvoiceEvent {
        InvoiceDrafted = [schema!("invoice/InvoiceDrafted")],
        InvoiceFinalized = [schema!("invoice/InvoiceFinalized"), schema!("invoice/InvoiceFinalized.1")],
        InvoiceVoided = [schema!("invoice/InvoiceVoided")],
        AdjustmentBooked = [schema!("invoice/AdjustmentBooked")],
        AdjustmentReleased = [schema!("invoice/AdjustmentReleased")],
    }
}

/// Cost of one meter under one version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Key of the meter: `storage` or `compute`.
    pub meter: String,
    /// Unit of the quantity: `GB.h`, `GiB.h` or `s`.
    pub unit: String,
    pub plan: String,
    pub plan_version: i32,
    /// Metered usage in byte-milliseconds or milliseconds, as an integer in decimal digits.
    pub metered: String,
    /// Metered usage in the line's unit, as a decimal truncated after 12 digits.
    pub quantity: String,
    /// Rounded amount, as a decimal.
    pub amount: String,
}

/// Usage on a day of the account's time zone, clipped to the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Date in the account's time zone, such as `2026-03-29`.
    pub date: String,
    pub start_at: Timestamp,
    /// First instant after the day.
    pub end_at: Timestamp,
    /// Storage in byte-milliseconds, as an integer in decimal digits.
    pub byte_milliseconds: String,
    /// Run time of jobs in milliseconds, as an integer in decimal digits.
    pub run_milliseconds: String,
}

/// An adjustment of an earlier invoice that this invoice settles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    pub invoice_id: Uuid,
    /// Month of the corrected invoice, such as `2026-03`.
    pub month: String,
    pub meter: String,
    pub plan: String,
    pub plan_version: i32,
    /// Difference, as a decimal.
    pub amount: String,
}

/// An invoice was drafted for a month. Until it is finalized, its amounts follow the usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceDrafted {
    pub organization_id: Uuid,
    /// Invoice month, such as `2026-03`.
    pub month: String,
    pub start_at: Timestamp,
    /// First instant after the period.
    pub end_at: Timestamp,
    /// IANA time zone of the invoice's days.
    pub time_zone: String,
}

/// The invoice received its number and is immutable from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceFinalized {
    pub organization_id: Uuid,
    /// Invoice number. Numbers are gapless across all invoices of the installation.
    pub number: i64,
    /// Currency of all amounts, as an ISO 4217 code.
    pub currency: String,
    pub lines: Vec<Line>,
    /// Adjustments of earlier invoices that this invoice settles.
    pub corrections: Vec<Correction>,
    pub days: Vec<Day>,
    /// Sum of the rounded lines minus their exact sum, as a decimal truncated after 12 digits.
    pub rounding: String,
    /// Sum of the lines, as a decimal.
    pub subtotal: String,
    /// Discount, as a decimal.
    pub discount: String,
    /// True-up to the plan's minimum, as a decimal.
    pub minimum_true_up: String,
    /// Tax, as a decimal.
    pub tax: String,
    /// Subtotal minus discount, plus minimum true-up, tax and corrections, as a decimal.
    pub total: String,
    /// Credit applied to the invoice, as a decimal.
    pub credit_applied: String,
    /// Amount due after credit, as a decimal.
    pub amount_due: String,
    /// Discount in percent of the subtotal, as a decimal; empty in events from before this field.
    pub discount_percent: String,
}

/// The invoice was voided. A credit note reverses a finalized invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceVoided {
    pub organization_id: Uuid,
    pub reason: String,
    /// Number of the credit note, in the series of invoice numbers; `None` if the invoice was a draft.
    pub credit_note: Option<i64>,
    /// Amount of the credit note, as a decimal; `None` if the invoice was a draft.
    pub amount: Option<String>,
}

/// Usage recorded after finalization changed a line or an amount derived from the lines.
///
/// A later invoice settles the difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentBooked {
    pub organization_id: Uuid,
    /// Meter of the adjusted line, or the adjusted derived amount: `discount`, `minimum_true_up` or `tax`.
    pub meter: String,
    /// Plan of the adjusted line; empty for a derived amount.
    pub plan: String,
    /// Plan version of the adjusted line; 0 for a derived amount.
    pub plan_version: i32,
    /// New metered usage in byte-milliseconds or milliseconds, as an integer in decimal digits.
    pub metered: String,
    /// Difference to the amount charged so far, as a decimal.
    pub amount: String,
    pub settled_in_id: Uuid,
    pub reason: String,
}

/// The invoice that settled an adjustment was voided.
///
/// The adjustment is no longer booked, and the next invoice settles any remaining difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentReleased {
    pub organization_id: Uuid,
    /// Meter of the adjusted line, or the adjusted derived amount.
    pub meter: String,
    /// Plan of the adjusted line; empty for a derived amount.
    pub plan: String,
    /// Plan version of the adjusted line; 0 for a derived amount.
    pub plan_version: i32,
    /// Amount that had been booked, as a decimal.
    pub amount: String,
    pub settled_in_id: Uuid,
}
