//! The report that `billing rate` writes.

use epoch::Timestamp;
use serde::Serialize;

use crate::{
    calendar::day::Day,
    metering::{anomaly::Anomaly, compute::ComputeUsage, storage::StorageByFile},
    pricing::{
        meter::{Meter, Quantity, Unit},
        price_model::PricedTier,
    },
    rating::{
        rate::{Invoice, InvoiceLine},
        usage_amounts::UsageAmounts,
    },
};

/// The number of decimals of exact amounts.
const DIGITS: u8 = 12;

#[derive(Debug, Serialize)]
pub struct RatingReport {
    storage: Storage,
    compute: Compute,
    /// `null` when no plan applies.
    invoice: Option<InvoiceOutput>,
}

#[derive(Debug, Serialize)]
struct Storage {
    byte_ms: String,
    gb_hours: String,
    provisional: bool,
    #[serde(rename = "flags")]
    anomalies: Vec<AnomalyOutput>,
    days: Vec<StorageDay>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct AnomalyOutput {
    flag: &'static str,
    id: String,
}

#[derive(Debug, Serialize)]
struct StorageDay {
    #[serde(flatten)]
    day: DayOutput,
    byte_ms: String,
}

#[derive(Debug, Serialize)]
struct ComputeDay {
    #[serde(flatten)]
    day: DayOutput,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct DayOutput {
    date: String,
    start: String,
    end: String,
}

#[derive(Debug, Serialize)]
struct File {
    file: String,
    byte_ms: String,
    unattributed_byte_ms: String,
    jobs: Vec<FileJob>,
}

#[derive(Debug, Serialize)]
struct FileJob {
    job: String,
    byte_ms: String,
}

#[derive(Debug, Serialize)]
struct Compute {
    run_ms: String,
    provisional: bool,
    #[serde(rename = "flags")]
    anomalies: Vec<AnomalyOutput>,
    days: Vec<ComputeDay>,
    jobs: Vec<Job>,
    users: Vec<User>,
}

#[derive(Debug, Serialize)]
struct Job {
    job: String,
    user: Option<String>,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct User {
    user: Option<String>,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct InvoiceOutput {
    currency: &'static str,
    lines: Vec<LineOutput>,
    subtotal: String,
    /// The subtotal minus the exact sum of its lines, truncated.
    rounding: String,
    discount: String,
    minimum_true_up: String,
    tax: String,
    total: String,
    credit_applied: String,
    amount_due: String,
    /// Usage of the period before any plan applied.
    unrated: Unrated,
}

#[derive(Debug, Serialize)]
struct Unrated {
    byte_ms: String,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct LineOutput {
    meter: &'static str,
    unit: &'static str,
    plan: String,
    plan_version: u32,
    quantity: String,
    amount: String,
    /// The amount before rounding, truncated.
    exact_amount: String,
    tiers: Vec<TierOutput>,
}

#[derive(Debug, Serialize)]
struct TierOutput {
    tier: usize,
    quantity: String,
    amount: String,
}

impl RatingReport {
    pub(super) fn new(
        storage: &StorageByFile<&str, &str>,
        stored_on: &[(Day, i128)],
        compute: &ComputeUsage<&str, &str>,
        invoice: Option<&Invoice>,
        unrated: &UsageAmounts,
    ) -> Self {
        let invoice = invoice.map(|invoice| InvoiceOutput::new(invoice, unrated));
        Self { storage: Storage::new(storage, stored_on), compute: Compute::new(compute), invoice }
    }
}

impl Storage {
    fn new(usage: &StorageByFile<&str, &str>, stored_on: &[(Day, i128)]) -> Self {
        let mut days = Vec::new();
        for (day, byte_ms) in stored_on {
            days.push(StorageDay { day: day.into(), byte_ms: byte_ms.to_string() });
        }
        let mut files = Vec::new();
        for file in &usage.files {
            let jobs =
                file.jobs.iter().map(|(job, share)| FileJob { job: (*job).to_owned(), byte_ms: share.to_string() });
            files.push(File {
                file: file.file.to_owned(),
                byte_ms: file.byte_ms.to_string(),
                unattributed_byte_ms: file.unattributed_byte_ms.to_string(),
                jobs: jobs.collect(),
            });
        }
        Self {
            byte_ms: usage.byte_ms.to_string(),
            gb_hours: Quantity { metered: usage.byte_ms, unit: Unit::GbHour }.to_string(),
            provisional: usage.provisional,
            anomalies: anomalies(&usage.anomalies),
            days,
            files,
        }
    }
}

impl Compute {
    fn new(usage: &ComputeUsage<&str, &str>) -> Self {
        let owned = |user: Option<&str>| user.map(str::to_owned);
        let mut days = Vec::new();
        for (day, run_ms) in &usage.days {
            days.push(ComputeDay { day: day.into(), run_ms: run_ms.to_string() });
        }
        let mut jobs = Vec::new();
        for job in &usage.jobs {
            jobs.push(Job { job: job.job.to_owned(), user: owned(job.user), run_ms: job.run_ms.to_string() });
        }
        let mut users = Vec::new();
        for (user, run_ms) in &usage.users {
            users.push(User { user: owned(*user), run_ms: run_ms.to_string() });
        }
        Self {
            run_ms: usage.run_ms.to_string(),
            provisional: usage.provisional,
            anomalies: anomalies(&usage.anomalies),
            days,
            jobs,
            users,
        }
    }
}

impl InvoiceOutput {
    fn new(invoice: &Invoice, unrated: &UsageAmounts) -> Self {
        Self {
            currency: invoice.currency.code(),
            lines: invoice.lines.iter().map(LineOutput::from).collect(),
            subtotal: invoice.subtotal.to_string(),
            rounding: invoice.rounding.truncated(DIGITS),
            discount: invoice.discount.to_string(),
            minimum_true_up: invoice.minimum_true_up.to_string(),
            tax: invoice.tax.to_string(),
            total: invoice.total.to_string(),
            credit_applied: invoice.credit_applied.to_string(),
            amount_due: invoice.amount_due.to_string(),
            unrated: Unrated {
                byte_ms: unrated.get(Meter::Storage).to_string(),
                run_ms: unrated.get(Meter::Compute).to_string(),
            },
        }
    }
}

impl From<&InvoiceLine> for LineOutput {
    fn from(line: &InvoiceLine) -> Self {
        let tier = |priced: &PricedTier| TierOutput {
            tier: priced.tier,
            quantity: priced.quantity.truncated(DIGITS),
            amount: priced.amount.truncated(DIGITS),
        };
        Self {
            meter: line.meter.as_str(),
            unit: line.quantity.unit.symbol(),
            plan: line.plan.plan.clone(),
            plan_version: line.plan.version,
            quantity: line.quantity.to_string(),
            amount: line.amount.to_string(),
            exact_amount: line.exact.truncated(DIGITS),
            tiers: line.tiers.iter().map(tier).collect(),
        }
    }
}

impl From<&Day> for DayOutput {
    fn from(day: &Day) -> Self {
        Self { date: day.date.to_string(), start: instant(day.span.start()), end: instant(day.span.end()) }
    }
}

/// Formats an instant by RFC 3339, without a fraction when the milliseconds are 0.
fn instant(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix(".000Z") {
        Some(whole) => format!("{whole}Z"),
        None => text,
    }
}

fn anomalies(anomalies: &[Anomaly<&str>]) -> Vec<AnomalyOutput> {
    anomalies.iter().map(|anomaly| AnomalyOutput { flag: anomaly.kind.as_str(), id: anomaly.id.to_owned() }).collect()
}
