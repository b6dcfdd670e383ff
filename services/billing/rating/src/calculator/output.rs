//! What `billing rate` writes.

use epoch::Timestamp;
use serde::Serialize;

use crate::{
    calendar::day::Day,
    metering::{anomaly::Flagged, compute::ComputeUsage, storage::StorageOfJobs},
    pricing::meter::{Quantity, Unit},
    rating::{
        rate::{Invoice, Line},
        usage_amounts::Metered,
    },
};

/// How many digits of exact amounts are shown.
const DIGITS: u8 = 12;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    storage: Storage,
    compute: Compute,
    /// `null` when no plan applies.
    invoice: Option<InvoiceAnswer>,
}

#[derive(Debug, Serialize)]
struct Storage {
    byte_ms: String,
    gb_hours: String,
    provisional: bool,
    flags: Vec<Flagging>,
    days: Vec<StorageDay>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct Flagging {
    flag: &'static str,
    id: String,
}

#[derive(Debug, Serialize)]
struct StorageDay {
    #[serde(flatten)]
    day: DayAnswer,
    byte_ms: String,
}

#[derive(Debug, Serialize)]
struct ComputeDay {
    #[serde(flatten)]
    day: DayAnswer,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct DayAnswer {
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
    flags: Vec<Flagging>,
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
struct InvoiceAnswer {
    currency: &'static str,
    lines: Vec<LineAnswer>,
    subtotal: String,
    /// The subtotal without the exact sum of its lines, cut.
    rounding: String,
    discount: String,
    minimum_true_up: String,
    tax: String,
    total: String,
    credit_applied: String,
    amount_due: String,
    /// What was used in the period before any plan applied.
    unrated: Unrated,
}

#[derive(Debug, Serialize)]
struct Unrated {
    byte_ms: String,
    run_ms: String,
}

#[derive(Debug, Serialize)]
struct LineAnswer {
    meter: &'static str,
    unit: &'static str,
    plan: String,
    plan_version: u32,
    quantity: String,
    amount: String,
    /// The amount before it was rounded, cut.
    exact_amount: String,
    tiers: Vec<TierAnswer>,
}

#[derive(Debug, Serialize)]
struct TierAnswer {
    tier: usize,
    quantity: String,
    amount: String,
}

impl Answer {
    pub(super) fn new(
        storage: &StorageOfJobs<&str, &str>,
        stored_on: &[(Day, i128)],
        compute: &ComputeUsage<&str, &str>,
        invoice: Option<&Invoice>,
        unrated: Metered,
    ) -> Self {
        let invoice = invoice.map(|invoice| InvoiceAnswer::new(invoice, unrated));
        Self { storage: Storage::new(storage, stored_on), compute: Compute::new(compute), invoice }
    }
}

impl Storage {
    fn new(usage: &StorageOfJobs<&str, &str>, stored_on: &[(Day, i128)]) -> Self {
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
            flags: flags(&usage.flags),
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
            flags: flags(&usage.flags),
            days,
            jobs,
            users,
        }
    }
}

impl InvoiceAnswer {
    fn new(invoice: &Invoice, unrated: Metered) -> Self {
        Self {
            currency: invoice.currency.code(),
            lines: invoice.lines.iter().map(LineAnswer::from).collect(),
            subtotal: invoice.subtotal.to_string(),
            rounding: invoice.rounding.cut(DIGITS),
            discount: invoice.discount.to_string(),
            minimum_true_up: invoice.minimum_true_up.to_string(),
            tax: invoice.tax.to_string(),
            total: invoice.total.to_string(),
            credit_applied: invoice.credit_applied.to_string(),
            amount_due: invoice.amount_due.to_string(),
            unrated: Unrated { byte_ms: unrated.byte_ms.to_string(), run_ms: unrated.run_ms.to_string() },
        }
    }
}

impl From<&Line> for LineAnswer {
    fn from(line: &Line) -> Self {
        let tier = |part: &crate::pricing::price_model::Part| TierAnswer {
            tier: part.tier,
            quantity: part.quantity.cut(DIGITS),
            amount: part.amount.cut(DIGITS),
        };
        Self {
            meter: line.meter.as_str(),
            unit: line.quantity.unit.symbol(),
            plan: line.plan.plan.clone(),
            plan_version: line.plan.version,
            quantity: line.quantity.to_string(),
            amount: line.amount.to_string(),
            exact_amount: line.exact.cut(DIGITS),
            tiers: line.parts.iter().map(tier).collect(),
        }
    }
}

impl From<&Day> for DayAnswer {
    fn from(day: &Day) -> Self {
        Self { date: day.date.to_string(), start: instant(day.span.start()), end: instant(day.span.end()) }
    }
}

/// RFC 3339; without milliseconds when there are none.
fn instant(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix(".000Z") {
        Some(whole) => format!("{whole}Z"),
        None => text,
    }
}

fn flags(flags: &[Flagged<&str>]) -> Vec<Flagging> {
    flags.iter().map(|flagged| Flagging { flag: flagged.flag.as_str(), id: flagged.id.to_owned() }).collect()
}
