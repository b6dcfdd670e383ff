//! The explanation of an invoice in a JSON response.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::invoice_response::InvoiceAdjustmentResponse;

/// The explanation of an invoice. Exact amounts are truncated to 12 decimal places.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ExplanationResponse {
    /// The invoice's id.
    pub(super) invoice: Uuid,
    #[schema(example = "2026-03")]
    pub(super) month: String,
    /// `draft`, `finalized` or `void`.
    #[schema(example = "finalized")]
    pub(super) status: &'static str,
    /// The instant as of which usage is evaluated.
    #[schema(value_type = String, format = DateTime)]
    pub(super) as_of: String,
    /// The instant after which recorded events are left out. Null when all events count.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) known_at: Option<String>,
    /// ISO 4217 code of all amounts.
    #[schema(example = "EUR")]
    pub(super) currency: &'static str,
    pub(super) lines: Vec<ExplainedLineResponse>,
    /// The amounts computed from the lines, in the order of computation.
    pub(super) sums: Vec<ExplainedSumResponse>,
    /// The sum of the lines, as explained.
    pub(super) subtotal: String,
    /// The sum of the lines minus the exact sum.
    pub(super) rounding: String,
    /// Differences between a finalized invoice and its explanation, by line. Null for a draft.
    pub(super) unexplained: Option<Vec<UnexplainedLineResponse>>,
    /// Corrections of earlier invoices that this invoice settles.
    pub(super) corrections: Vec<ExplainedCorrectionResponse>,
    /// Adjustments that were booked after the invoice was finalized.
    pub(super) adjustments: Vec<InvoiceAdjustmentResponse>,
    pub(super) days: Vec<ExplainedDayResponse>,
    /// The intervals of the requested day. Null without `date`.
    pub(super) intervals: Option<DayIntervalsResponse>,
}

/// A line item by tier and by day. Its tiers and its days sum to its exact amount.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedLineResponse {
    /// `storage` or `compute`.
    #[schema(example = "storage")]
    pub(super) meter: &'static str,
    pub(super) plan: String,
    pub(super) plan_version: u32,
    /// Whether a price override of the account applies.
    pub(super) own_price: bool,
    /// `GB.h`, `GiB.h` or `s`.
    #[schema(example = "GB.h")]
    pub(super) unit: &'static str,
    /// The metered amount in byte-milliseconds or milliseconds, exact.
    pub(super) metered: String,
    /// The metered amount in units.
    pub(super) quantity: String,
    /// The amount before rounding.
    pub(super) exact_amount: String,
    pub(super) amount: String,
    pub(super) tiers: Vec<ExplainedTierResponse>,
    pub(super) days: Vec<ExplainedLineDayResponse>,
}

/// The quantity that a line has in one tier.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedTierResponse {
    /// The position of the tier in the price, from 0.
    pub(super) tier: usize,
    pub(super) quantity: String,
    pub(super) amount: String,
}

/// The contribution of a day to a line. A day has two contributions when the plan changes within it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedLineDayResponse {
    #[schema(example = "2026-03-29")]
    pub(super) date: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub(super) start: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) end: String,
    /// The metered amount in byte-milliseconds or milliseconds, exact.
    pub(super) metered: String,
    /// The amount before rounding.
    pub(super) exact_amount: String,
    pub(super) tiers: Vec<ExplainedTierResponse>,
}

/// An amount computed from the lines.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedSumResponse {
    /// `subtotal`, `discount`, `minimum_true_up`, `tax`, `corrections`, `total`, `credit_applied` or `amount_due`.
    #[schema(example = "tax")]
    pub(super) what: &'static str,
    /// The percentage of `discount` and `tax`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "21")]
    pub(super) percent: Option<String>,
    /// The plan's minimum, of `minimum_true_up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minimum: Option<String>,
    pub(super) amount: String,
}

/// The difference between a line of a finalized invoice and its explanation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UnexplainedLineResponse {
    pub(super) meter: String,
    pub(super) plan: String,
    pub(super) plan_version: String,
    /// The difference of the metered amounts.
    pub(super) metered: String,
    /// The difference of the amounts.
    pub(super) amount: String,
}

/// A correction of an earlier invoice.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedCorrectionResponse {
    /// The corrected invoice.
    pub(super) invoice: Uuid,
    /// The month of the corrected invoice.
    #[schema(example = "2026-02")]
    pub(super) month: String,
    /// The meter of the corrected line; or `discount`, `minimum_true_up` or `tax`.
    pub(super) meter: String,
    pub(super) plan: String,
    pub(super) plan_version: i32,
    pub(super) amount: String,
    /// Path of the explanation of the corrected invoice, with the events known when the correction was settled.
    pub(super) explanation: String,
}

/// Usage on one day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedDayResponse {
    #[schema(example = "2026-03-29")]
    pub(super) date: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) start: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) end: String,
    /// Stored bytes times milliseconds, exact.
    pub(super) byte_ms: String,
    /// Run time in milliseconds, exact.
    pub(super) run_ms: String,
    /// Storage from events recorded after the invoice was finalized. Null for a draft.
    pub(super) late_byte_ms: Option<String>,
    /// Run time from events recorded after the invoice was finalized. Null for a draft.
    pub(super) late_run_ms: Option<String>,
}

/// The intervals of a day, at most 100 files and 100 jobs at a time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayIntervalsResponse {
    pub(super) stored: Vec<StoredIntervalResponse>,
    pub(super) ran: Vec<RunIntervalResponse>,
    /// The `after_file` of the next request. Null when there are no more files.
    pub(super) next_file: Option<Uuid>,
    /// The `after_job` of the next request. Null when there are no more jobs.
    pub(super) next_job: Option<Uuid>,
}

/// An interval in which the size of a file is constant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoredIntervalResponse {
    pub(super) file: Uuid,
    #[schema(value_type = String, format = DateTime)]
    pub(super) start: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) end: String,
    /// The size of the file in bytes.
    pub(super) bytes: String,
    /// Stored bytes times milliseconds, exact.
    pub(super) byte_ms: String,
    /// The events that gave the file this size, on this day or before.
    pub(super) events: Vec<SizeChangeEventResponse>,
}

/// An event that changed the size of a file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SizeChangeEventResponse {
    /// The event's id. Null for events whose id was not recorded.
    pub(super) id: Option<Uuid>,
    #[schema(value_type = String, format = DateTime)]
    pub(super) occurred_at: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) recorded_at: String,
    pub(super) delta_bytes: i64,
}

/// The run time of a job on the day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunIntervalResponse {
    pub(super) job: Uuid,
    pub(super) user: Option<Uuid>,
    /// Run time in milliseconds, exact.
    pub(super) run_ms: String,
    /// The event that started the run.
    pub(super) started: Option<RunEventResponse>,
    /// The event that ended the run. Null while the job is running.
    pub(super) ended: Option<RunEventResponse>,
}

/// An event that started or ended the run of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunEventResponse {
    /// The event's id. Null for events whose id was not recorded.
    pub(super) id: Option<Uuid>,
    #[schema(value_type = String, format = DateTime)]
    pub(super) occurred_at: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) recorded_at: Option<String>,
}
