//! From an amount to what it is made of: lines, tiers, days, intervals, events.
//!
//! The problem: whoever doubts an amount wants to see what it is made of, also years later, when more is known than then.
//!
//! The invariant: at each step the parts sum to what they explain, before rounding. A frozen invoice is explained by what had been
//! recorded when it was frozen; where that isn't what it says, since an event was still on its way, the difference is told.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use bigdecimal::num_bigint::BigInt;
use contracts::invoice::InvoiceFinalized;
use epoch::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::{ApiQuery, Problem};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{Api, Monthly, Viewed, question::said};
use crate::{
    domain::{
        metering::{LevelChange, segments},
        rating::{Invoice, Line},
        span::Span,
    },
    ledger::{Ledger, Used, When},
    metering::{
        Part,
        origins::{Origin, RunOrigin},
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

/// Explains a month's amounts, and with a date, what of it is of which intervals and events, 100 files and 100 jobs at a time.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/explanation", tag = "billing",
    params(("org" = Uuid, Path), ("month" = String, Path), ExplainQuery),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem))
)]
pub async fn explain(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    Monthly(month): Monthly,
    ApiQuery(query): ApiQuery<ExplainQuery>,
) -> Result<Json<Value>, Problem> {
    let account = api.ledger.account(organization).await?;
    let (id, document) = api.ledger.invoice_of(organization, month).await?;
    let mut known_at = said("known_at", query.known_at.as_deref())?;
    if known_at.is_none() && document.finalized().is_some() {
        known_at = api.ledger.frozen_at(id).await?;
    }
    let when = When { as_of: api.ledger.now(), known_at };
    let statement = api.ledger.statement(organization, &account, month, when, &BigInt::from(0)).await?;
    let (used, invoice) = (&statement.used, &statement.invoice);
    let mut days = Vec::new();
    for (day, metered) in &used.days {
        days.push(json!({
            "date": day.date.to_string(), "start": day.span.start().to_string(), "end": day.span.end().to_string(),
            "byte_ms": metered.byte_ms.to_string(), "run_ms": metered.run_ms.to_string(),
        }));
    }
    let intervals = match &query.date {
        None => Value::Null,
        Some(date) => {
            let day = used.days.iter().find(|(day, _)| day.date.to_string() == *date);
            let (day, _) = day.ok_or_else(|| Problem::unprocessable(format!("{date:?} is not a day of {month}")))?;
            intervals(&api.ledger, organization, used, day.span, &query).await?
        }
    };
    Ok(Json(json!({
        "month": month.to_string(),
        "status": document.status(),
        "as_of": when.as_of.to_string(),
        "known_at": known_at.map(|known_at| known_at.to_string()),
        "currency": invoice.currency.code(),
        "lines": invoice.lines.iter().map(line).collect::<Vec<_>>(),
        "subtotal": invoice.subtotal.to_string(),
        "rounding": invoice.rounding.cut(DIGITS),
        "unexplained": document.finalized().map(|frozen| unexplained(frozen, invoice)),
        "adjustments": document.adjustments(),
        "days": days,
        "intervals": intervals,
    })))
}

fn line(line: &Line) -> Value {
    let mut tiers = Vec::new();
    for part in &line.parts {
        let (quantity, amount) = (part.quantity.cut(DIGITS), part.amount.cut(DIGITS));
        tiers.push(json!({ "tier": part.tier, "quantity": quantity, "amount": amount }));
    }
    json!({
        "meter": line.meter.as_str(),
        "plan": line.plan.plan,
        "plan_version": line.plan.version,
        "own_price": line.own,
        "unit": line.quantity.unit.symbol(),
        "metered": line.quantity.metered.to_string(),
        "quantity": line.quantity.to_string(),
        "exact_amount": line.exact.cut(DIGITS),
        "amount": line.amount.to_string(),
        "tiers": tiers,
    })
}

/// What a frozen invoice says to have been metered without what explains it, by line; nothing where both are the same.
fn unexplained(frozen: &InvoiceFinalized, explained: &Invoice) -> Vec<Value> {
    let mut differences: BTreeMap<(&str, &str, String), i128> = BTreeMap::new();
    for line in &frozen.lines {
        let metered = line.metered.parse().unwrap_or(0_i128);
        *differences.entry((&line.meter, &line.plan, line.plan_version.to_string())).or_insert(0) += metered;
    }
    for line in &explained.lines {
        let key = (line.meter.as_str(), line.plan.plan.as_str(), line.plan.version.to_string());
        *differences.entry(key).or_insert(0) -= line.quantity.metered;
    }
    let told = |((meter, plan, version), metered): (&(&str, &str, String), &i128)| json!({ "meter": meter, "plan": plan, "plan_version": version, "metered": metered.to_string() });
    differences.iter().filter(|(_, metered)| **metered != 0).map(told).collect()
}

/// The intervals of a day in which a file's size stayed the same or a job ran, and the events that began and ended them.
async fn intervals(
    ledger: &Ledger,
    organization: Uuid,
    used: &Used,
    day: Span,
    query: &ExplainQuery,
) -> Result<Value, Problem> {
    let mut snapshot = ledger.snapshot(organization, day, used.when).await?;
    let Part { items: files, next: next_file } = snapshot.origins_of_files(query.after_file, LISTED).await?;
    let Part { items: runs, next: next_job } = snapshot.origins_of_runs(query.after_job, LISTED).await?;
    let counted = snapshot.counted();
    let stored: Vec<_> = files.iter().flat_map(|(file, origins)| stored(*file, origins, counted)).collect();
    let ran: Vec<_> = runs.iter().filter_map(|origin| ran(origin, counted, used.when.as_of)).collect();
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
    let event =
        |id: Option<Uuid>, at: Option<Timestamp>| at.map(|at| json!({ "id": id, "occurred_at": at.to_string() }));
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
