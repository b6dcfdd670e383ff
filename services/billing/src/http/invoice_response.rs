//! Invoices and credit notes in JSON responses. Amounts are decimals in strings.

use contracts::invoice::{AdjustmentBooked, Correction, Day, Line};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::export::documents::{CreditNote, InvoiceDocument};

/// An invoice. A draft shows the amounts that it would have if it were finalized now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvoiceResponse {
    id: Uuid,
    organization: Uuid,
    /// `draft`, `finalized` or `void`.
    #[schema(example = "finalized")]
    status: &'static str,
    /// The invoice number. Null for a draft.
    number: Option<i64>,
    /// The number of the credit note that reverses a void invoice.
    credit_note: Option<i64>,
    #[schema(example = "2026-03")]
    month: String,
    /// First instant of the month in the account's time zone.
    #[schema(value_type = String, format = DateTime)]
    start: String,
    /// First instant after the month.
    #[schema(value_type = String, format = DateTime)]
    end: String,
    /// IANA time zone of the days.
    #[schema(example = "Europe/Madrid")]
    time_zone: String,
    /// Whether jobs are still running or files are still stored, so that the amounts grow. Always false for a finalized
    /// invoice.
    provisional: bool,
    /// ISO 4217 code of all amounts.
    #[schema(example = "EUR")]
    currency: String,
    lines: Vec<InvoiceLineResponse>,
    /// Corrections of earlier invoices that this invoice settles.
    corrections: Vec<InvoiceCorrectionResponse>,
    /// The sum of the lines minus the exact sum, truncated to 12 decimal places.
    #[schema(example = "0.0016")]
    rounding: String,
    /// The sum of the lines.
    subtotal: String,
    /// Percentage of the subtotal that the discount takes off. Empty on invoices that were finalized before it was recorded.
    discount_percent: String,
    /// The amount that the discount takes off.
    discount: String,
    /// The amount added to reach the plan's minimum.
    minimum_true_up: String,
    tax: String,
    /// Subtotal minus discount, plus true-up, tax and corrections.
    total: String,
    /// The account's credit that the invoice uses.
    credit_applied: String,
    /// The total minus the applied credit.
    #[schema(example = "7.62")]
    amount_due: String,
    /// Adjustments that were booked after the invoice was finalized. Later invoices settle them.
    adjustments: Vec<InvoiceAdjustmentResponse>,
    days: Vec<InvoiceDayResponse>,
}

/// A line item: costs of one meter under one plan version.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceLineResponse {
    /// `storage` or `compute`.
    #[schema(example = "storage")]
    meter: String,
    /// `GB.h`, `GiB.h` or `s`.
    #[schema(example = "GB.h")]
    unit: String,
    /// The plan's id.
    plan: String,
    plan_version: i32,
    /// The metered amount in byte-milliseconds or milliseconds, exact.
    metered: String,
    /// The metered amount in units, truncated to 12 decimal places.
    quantity: String,
    amount: String,
}

/// A correction of an earlier invoice.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceCorrectionResponse {
    /// The corrected invoice.
    invoice_id: Uuid,
    /// The month of the corrected invoice.
    #[schema(example = "2026-02")]
    month: String,
    /// The meter of the corrected line; or `discount`, `minimum_true_up` or `tax`.
    meter: String,
    /// The plan of the corrected line. Empty for discount, minimum and tax.
    plan: String,
    /// The plan version of the corrected line. 0 for discount, minimum and tax.
    plan_version: i32,
    /// The difference to the amount charged so far.
    amount: String,
}

/// An adjustment of a finalized invoice, booked because of late events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvoiceAdjustmentResponse {
    organization_id: Uuid,
    /// The meter of the adjusted line; or `discount`, `minimum_true_up` or `tax`.
    meter: String,
    /// The plan of the adjusted line. Empty for discount, minimum and tax.
    plan: String,
    /// The plan version of the adjusted line. 0 for discount, minimum and tax.
    plan_version: i32,
    /// The metered amount including late events, in byte-milliseconds or milliseconds.
    metered: String,
    /// The difference to the amount charged so far.
    amount: String,
    /// The invoice that settles the adjustment.
    settled_in_id: Uuid,
    reason: String,
}

/// Usage on one day of an invoice.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceDayResponse {
    #[schema(example = "2026-03-29")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    /// Stored bytes times milliseconds, exact.
    byte_ms: String,
    /// Run time in milliseconds, exact.
    run_ms: String,
}

/// A credit note, which reverses a void invoice. Its number is from the same series as invoice numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreditNoteResponse {
    organization: Uuid,
    number: i64,
    /// The id of the reversed invoice.
    invoice: Uuid,
    invoice_number: i64,
    /// The month of the reversed invoice.
    #[schema(example = "2026-03")]
    month: String,
    /// ISO 4217 code of the amount.
    #[schema(example = "EUR")]
    currency: String,
    /// The refunded amount.
    amount: String,
    reason: String,
}

impl From<&InvoiceDocument> for InvoiceResponse {
    fn from(document: &InvoiceDocument) -> Self {
        let content = document.content.clone();
        Self {
            id: document.id,
            organization: content.organization_id,
            status: document.status,
            number: document.number(),
            credit_note: document.credit_note,
            month: document.month.clone(),
            start: document.start.to_string(),
            end: document.end.to_string(),
            time_zone: document.time_zone.clone(),
            provisional: document.provisional,
            currency: content.currency,
            lines: content.lines.into_iter().map(InvoiceLineResponse::from).collect(),
            corrections: content.corrections.into_iter().map(InvoiceCorrectionResponse::from).collect(),
            rounding: content.rounding,
            subtotal: content.subtotal,
            discount_percent: content.discount_percent,
            discount: content.discount,
            minimum_true_up: content.minimum_true_up,
            tax: content.tax,
            total: content.total,
            credit_applied: content.credit_applied,
            amount_due: content.amount_due,
            adjustments: document.adjustments.iter().map(InvoiceAdjustmentResponse::from).collect(),
            days: content.days.into_iter().map(InvoiceDayResponse::from).collect(),
        }
    }
}

impl From<Line> for InvoiceLineResponse {
    fn from(line: Line) -> Self {
        let Line { meter, unit, plan, plan_version, metered, quantity, amount } = line;
        Self { meter, unit, plan, plan_version, metered, quantity, amount }
    }
}

impl From<Correction> for InvoiceCorrectionResponse {
    fn from(correction: Correction) -> Self {
        let Correction { invoice_id, month, meter, plan, plan_version, amount } = correction;
        Self { invoice_id, month, meter, plan, plan_version, amount }
    }
}

impl From<&AdjustmentBooked> for InvoiceAdjustmentResponse {
    fn from(booked: &AdjustmentBooked) -> Self {
        Self {
            organization_id: booked.organization_id,
            meter: booked.meter.clone(),
            plan: booked.plan.clone(),
            plan_version: booked.plan_version,
            metered: booked.metered.clone(),
            amount: booked.amount.clone(),
            settled_in_id: booked.settled_in_id,
            reason: booked.reason.clone(),
        }
    }
}

impl From<Day> for InvoiceDayResponse {
    fn from(day: Day) -> Self {
        Self {
            date: day.date,
            start: day.start_at.to_string(),
            end: day.end_at.to_string(),
            byte_ms: day.byte_milliseconds,
            run_ms: day.run_milliseconds,
        }
    }
}

impl From<&CreditNote> for CreditNoteResponse {
    fn from(note: &CreditNote) -> Self {
        Self {
            organization: note.organization,
            number: note.number,
            invoice: note.invoice,
            invoice_number: note.invoice_number,
            month: note.month.clone(),
            currency: note.currency.clone(),
            amount: note.amount.clone(),
            reason: note.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InvoiceResponse;
    use crate::export::documents::{
        InvoiceDocument,
        tests::{document, late_adjustment},
    };

    #[test]
    fn invoice_response_has_rounding_and_adjustments() {
        let document = InvoiceDocument { adjustments: vec![late_adjustment()], ..document() };
        let json = serde_json::to_value(InvoiceResponse::from(&document)).unwrap();
        assert_eq!(json["rounding"], "0.004");
        assert_eq!(json["adjustments"][0]["amount"], "-0.10");
    }
}
