//! From an amount to what it is made of: lines, tiers, days, intervals, events.
//!
//! The problem: whoever doubts an amount wants to see what it is made of, also years later, when more is known than then.
//!
//! The invariant: at each step the parts sum to what they explain, before rounding: tiers and days to their line, intervals to their day.
//! A frozen invoice is explained by what had been recorded when it was frozen; where that isn't what it says, since an event was still on
//! its way, the difference is told. A correction leads to the invoice it corrects, as it was known when the correction was settled, and
//! there to the days that changed.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use contracts::invoice::{Correction, Day as FrozenDay, InvoiceFinalized};
use epoch::Timestamp;
use http_kit::{ApiQuery, Problem};
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, segments},
    money::{amount::Amount, exact::Exact},
    pricing::{meter::Meter, price_model::PricedTier},
    rating::explain::steps,
};
use serde::Deserialize;
use serde_json::{Value, json};
use usage::queries::{
    origins::{EventOrigin, Origin, RunOrigin},
    usage_query::UsagePage,
};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    http::{
        access::{Invoiced, Viewed},
        instant::said,
        invoices::{Found, found},
        state::Api,
    },
    invoicing::{
        ledger::Ledger,
        month_usage::{Statement, When},
    },
};

/// How many digits of exact amounts are shown.
const DIGITS: u8 = 12;
/// The files and the jobs of an answer.
const LISTED: usize = 100;

/// What is to be explained.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// A day of the month, as `2026-03-29`, of which intervals and events are wanted too.
    date: Option<String>,
    /// What was recorded later is left out, RFC 3339. If not said: of a frozen invoice, when it was frozen; else all is known.
    known_at: Option<String>,
    /// `next_file` of the answer before.
    after_file: Option<Uuid>,
    /// `next_job` of the answer before.
    after_job: Option<Uuid>,
}

/// Explains an invoice's amounts, and with a date, what of it is of which intervals and events, 100 files and 100 jobs at a time.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/explanation", tag = "billing",
    params(("org" = Uuid, Path), ("month" = String, Path, description = "A month, or the id of an invoice"), ExplainQuery),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem))
)]
pub async fn explain(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    invoiced: Invoiced,
    ApiQuery(query): ApiQuery<ExplainQuery>,
) -> Result<Json<Value>, Problem> {
    let account = api.ledger.account(organization).await?;
    let Found { id, month, state: document } = found(&api.ledger, organization, invoiced).await?;
    let frozen_at = match document.finalized() {
        Some(_) => api.ledger.frozen_at(id).await?,
        None => None,
    };
    let known_at = said("known_at", query.known_at.as_deref())?.or(frozen_at);
    let when = When { as_of: api.ledger.now(), known_at };
    // Corrections that a frozen invoice settled were known when it was frozen; those of a draft, as late as its usage.
    let (corrections, corrected_at) = match document.finalized() {
        Some(frozen) => (frozen.corrections.clone(), frozen_at),
        None => (api.ledger.pending(organization, &account, when).await?, known_at),
    };
    let explained = Explained {
        organization,
        frozen: document.finalized(),
        statement: api.ledger.statement(organization, &account, month, when, &corrections).await?,
    };
    let used = &explained.statement.used;
    let intervals = match &query.date {
        None => Value::Null,
        Some(date) => {
            let day = used.days.iter().position(|(day, _)| day.date.to_string() == *date);
            let day = day.ok_or_else(|| Problem::unprocessable(format!("{date:?} is not a day of {month}")))?;
            let parts: Vec<_> = used.parts.iter().filter(|part| part.day == day).map(|part| part.span).collect();
            intervals(&api.ledger, organization, used.when, &parts, &query).await?
        }
    };
    Ok(Json(json!({
        "invoice": id,
        "month": month.to_string(),
        "status": document.status(),
        "as_of": when.as_of.to_string(),
        "known_at": known_at.map(|known_at| known_at.to_string()),
        "currency": explained.statement.invoice.currency.code(),
        "lines": explained.lines(),
        "sums": explained.sums(),
        "subtotal": explained.statement.invoice.subtotal.to_string(),
        "rounding": explained.statement.invoice.rounding.truncated(DIGITS),
        "unexplained": explained.unexplained(),
        "corrections": corrections.iter().map(|one| explained.correction(one, corrected_at)).collect::<Vec<_>>(),
        "adjustments": document.adjustments(),
        "days": explained.days(),
        "intervals": intervals,
    })))
}

/// What is explained, and by what.
struct Explained<'i> {
    organization: Uuid,
    frozen: Option<&'i InvoiceFinalized>,
    statement: Statement,
}

impl Explained<'_> {
    /// The lines, each by tier and by day.
    fn lines(&self) -> Vec<Value> {
        let Statement { used, invoice, .. } = &self.statement;
        let mut lines = Vec::new();
        for line in &invoice.lines {
            let parts = used.parts.iter().map(|part| (part.term, part.metered.clone()));
            let mut days = Vec::new();
            for step in steps(line, &used.terms, parts) {
                let Some(part) = used.parts.get(step.interval) else { continue };
                let amount = step.tiers.iter().fold(Exact::zero(), |sum, tier| sum.plus(&tier.amount));
                days.push(json!({
                    "date": used.days.get(part.day).map(|(day, _)| day.date.to_string()),
                    "start": part.span.start().to_string(),
                    "end": part.span.end().to_string(),
                    "metered": step.metered.to_string(),
                    "exact_amount": amount.truncated(DIGITS),
                    "tiers": tiers(&step.tiers),
                }));
            }
            lines.push(json!({
                "meter": line.meter.as_str(),
                "plan": line.plan.plan,
                "plan_version": line.plan.version,
                "own_price": line.overridden,
                "unit": line.quantity.unit.symbol(),
                "metered": line.quantity.metered.to_string(),
                "quantity": line.quantity.to_string(),
                "exact_amount": line.exact.truncated(DIGITS),
                "amount": line.amount.to_string(),
                "tiers": tiers(&line.tiers),
                "days": days,
            }));
        }
        lines
    }

    /// What follows from the lines, in its order, with what it was computed by.
    fn sums(&self) -> Value {
        let Statement { invoice, adjustments, .. } = &self.statement;
        let frozen = |computed: &Amount, frozen: fn(&InvoiceFinalized) -> &String| {
            self.frozen.map_or_else(|| computed.to_string(), |document| frozen(document).clone())
        };
        let discount_percent =
            self.frozen.map(|frozen| frozen.discount_percent.clone()).filter(|said| !said.is_empty());
        let discount_percent = discount_percent.unwrap_or_else(|| adjustments.discount_percent.to_string());
        json!([
            { "what": "subtotal", "amount": frozen(&invoice.subtotal, |frozen| &frozen.subtotal) },
            { "what": "discount", "percent": discount_percent, "amount": frozen(&invoice.discount, |frozen| &frozen.discount) },
            { "what": "minimum_true_up", "minimum": adjustments.minimum.to_string(),
                "amount": frozen(&invoice.minimum_true_up, |frozen| &frozen.minimum_true_up) },
            { "what": "tax", "percent": adjustments.tax_percent.to_string(), "amount": frozen(&invoice.tax, |frozen| &frozen.tax) },
            { "what": "corrections", "amount": invoice.corrections.to_string() },
            { "what": "total", "amount": frozen(&invoice.total, |frozen| &frozen.total) },
            { "what": "credit_applied", "amount": frozen(&invoice.credit_applied, |frozen| &frozen.credit_applied) },
            { "what": "amount_due", "amount": frozen(&invoice.amount_due, |frozen| &frozen.amount_due) },
        ])
    }

    /// A correction, and where what it corrects is explained as it was known when it was settled.
    fn correction(&self, correction: &Correction, known_at: Option<Timestamp>) -> Value {
        let known_at = known_at.map_or_else(|| self.statement.used.when.as_of.to_string(), |at| at.to_string());
        let path =
            format!("/api/v1/organizations/{}/invoices/{}/explanation", self.organization, correction.invoice_id);
        json!({
            "invoice": correction.invoice_id,
            "month": correction.month,
            "meter": correction.meter,
            "plan": correction.plan,
            "plan_version": correction.plan_version,
            "amount": correction.amount,
            "explanation": format!("{path}?known_at={known_at}"),
        })
    }

    /// The days; of a frozen invoice also how they differ from what was frozen, which is where what came late is.
    fn days(&self) -> Vec<Value> {
        let frozen: BTreeMap<&str, &FrozenDay> =
            self.frozen.iter().flat_map(|frozen| &frozen.days).map(|day| (day.date.as_str(), day)).collect();
        let mut days = Vec::new();
        for (day, metered) in &self.statement.used.days {
            let date = day.date.to_string();
            let later = |now: i128, frozen: &str| (now - frozen.parse().unwrap_or(0_i128)).to_string();
            let frozen = frozen.get(date.as_str());
            days.push(json!({
                "date": date, "start": day.span.start().to_string(), "end": day.span.end().to_string(),
                "byte_ms": metered.get(Meter::Storage).to_string(), "run_ms": metered.get(Meter::Compute).to_string(),
                "late_byte_ms": frozen.map(|frozen| later(metered.get(Meter::Storage), &frozen.byte_milliseconds)),
                "late_run_ms": frozen.map(|frozen| later(metered.get(Meter::Compute), &frozen.run_milliseconds)),
            }));
        }
        days
    }

    /// What a frozen invoice says without what explains it, by line; nothing where both are the same.
    fn unexplained(&self) -> Option<Vec<Value>> {
        let (frozen, invoice) = (self.frozen?, &self.statement.invoice);
        let zero = || (0_i128, Amount::zero(invoice.currency));
        let mut differences: BTreeMap<(&str, &str, String), (i128, Amount)> = BTreeMap::new();
        for line in &frozen.lines {
            let key = (line.meter.as_str(), line.plan.as_str(), line.plan_version.to_string());
            let (metered, amount) = differences.entry(key).or_insert_with(zero);
            *metered += line.metered.parse().unwrap_or(0_i128);
            // What a frozen line says was written here.
            *amount = amount.plus(&Amount::parse(&line.amount, invoice.currency).unwrap_or_else(|_| zero().1));
        }
        for line in &invoice.lines {
            let key = (line.meter.as_str(), line.plan.plan.as_str(), line.plan.version.to_string());
            let (metered, amount) = differences.entry(key).or_insert_with(zero);
            *metered -= line.quantity.metered;
            *amount = amount.minus(&line.amount);
        }
        differences.retain(|_, (metered, amount)| *metered != 0 || !amount.is_zero());
        let told = |((meter, plan, version), (metered, amount)): (&(&str, &str, String), &(i128, Amount))| {
            json!({
                "meter": meter, "plan": plan, "plan_version": version,
                "metered": metered.to_string(), "amount": amount.to_string(),
            })
        };
        Some(differences.iter().map(told).collect())
    }
}

fn tiers(parts: &[PricedTier]) -> Vec<Value> {
    let mut tiers = Vec::new();
    for part in parts {
        let (quantity, amount) = (part.quantity.truncated(DIGITS), part.amount.truncated(DIGITS));
        tiers.push(json!({ "tier": part.tier, "quantity": quantity, "amount": amount }));
    }
    tiers
}

/// The intervals of a day in which a file's size stayed the same or a job ran, and the events that began and ended them; cut where
/// another plan begins to apply.
async fn intervals(
    ledger: &Ledger,
    organization: Uuid,
    when: When,
    parts: &[Span],
    query: &ExplainQuery,
) -> Result<Value, Problem> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(Value::Null) };
    let day = Span::new(first.start(), last.end());
    let mut snapshot = ledger.snapshot(organization, day, when).await?;
    let UsagePage { items: files, next: next_file } = snapshot.origins_of_files(query.after_file, LISTED).await?;
    let UsagePage { items: runs, next: next_job } = snapshot.origins_of_runs(query.after_job, LISTED).await?;
    let counted: Vec<_> = parts.iter().map(|part| part.intersect(snapshot.counted())).collect();
    let of_file = |(file, origins): &(Uuid, Vec<Origin>)| -> Vec<Value> {
        counted.iter().flat_map(|part| stored(*file, origins, *part)).collect()
    };
    let stored: Vec<_> = files.iter().flat_map(of_file).collect();
    let of_run = |origin: &RunOrigin| -> Vec<Value> {
        counted.iter().filter_map(|part| ran(origin, *part, when.as_of)).collect()
    };
    let ran: Vec<_> = runs.iter().flat_map(of_run).collect();
    Ok(json!({ "stored": stored, "ran": ran, "next_file": next_file, "next_job": next_job }))
}

/// The intervals of a file, each with the events of the last instant at which its size changed: in the day or before.
fn stored(file: Uuid, origins: &[Origin], counted: Span) -> Vec<Value> {
    let changes: Vec<LevelChange> = origins.iter().map(|origin| origin.change).collect();
    let instants: BTreeSet<Timestamp> = changes.iter().map(|change| change.at).collect();
    let mut intervals = Vec::new();
    for segment in segments(&changes, counted).into_iter().filter(|segment| segment.level != 0) {
        let since = instants.range(..=segment.span.start()).next_back();
        let began = origins.iter().filter(|origin| Some(&origin.change.at) == since);
        let event = |origin: &Origin| {
            json!({
                "id": origin.event, "occurred_at": origin.change.at.to_string(),
                "recorded_at": origin.recorded_at.to_string(), "delta_bytes": origin.change.delta,
            })
        };
        intervals.push(json!({
            "file": file,
            "start": segment.span.start().to_string(),
            "end": segment.span.end().to_string(),
            "bytes": segment.level.to_string(),
            "byte_ms": (segment.level * segment.span.millis()).to_string(),
            "events": began.map(event).collect::<Vec<_>>(),
        }));
    }
    intervals
}

fn ran(origin: &RunOrigin, counted: Span, as_of: Timestamp) -> Option<Value> {
    let run = &origin.run;
    let millis = run.run.millis_within(counted, as_of);
    let event = |told: EventOrigin, at: Option<Timestamp>| {
        let recorded_at = told.recorded_at.map(|at| at.to_string());
        at.map(|at| json!({ "id": told.event, "occurred_at": at.to_string(), "recorded_at": recorded_at }))
    };
    (millis != 0).then(|| {
        json!({
            "job": run.job,
            "user": run.user,
            "run_ms": millis.to_string(),
            "started": event(origin.started_by, run.run.started_at),
            "ended": event(origin.ended_by, run.run.ended_at),
        })
    })
}
