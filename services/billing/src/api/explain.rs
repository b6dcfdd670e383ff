//! From an amount to what it is made of: lines, tiers, days, intervals, events.
//!
//! The invariant: at each step the parts sum to what they explain, before rounding.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use bigdecimal::num_bigint::BigInt;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::{ApiPath, ApiQuery, Caller, Problem, Role};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{Api, invoices::parsed};
use crate::{
    domain::{
        metering::segments,
        rating::Line,
        span::{Span, Window},
    },
    ledger::{Ledger, Statement, Used},
};

/// How many digits of exact amounts are shown.
const DIGITS: u8 = 12;
/// The most intervals that are shown of a day.
const MAX_INTERVALS: usize = 10_000;

/// What is to be explained.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// A day of the month, as `2026-03-29`, of which intervals and events are wanted too.
    date: Option<String>,
}

/// Explains a month's amounts by what is known now.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/explanation", tag = "billing",
    params(("org" = Uuid, Path), ("month" = String, Path), ExplainQuery),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub async fn explain(
    State(api): State<Api>,
    ApiPath((organization, month)): ApiPath<(Uuid, String)>,
    caller: Caller,
    ApiQuery(query): ApiQuery<ExplainQuery>,
) -> Result<Json<Value>, Problem> {
    caller.in_organization(organization)?;
    caller.at_least(Role::Viewer)?;
    let account = api.ledger.account(organization).await?;
    let (month, now) = (parsed(&month)?, api.ledger.now());
    let statement = api.ledger.statement(organization, &account, month, now, &BigInt::from(0)).await?;
    let mut days = Vec::new();
    for (day, metered) in &statement.days {
        days.push(json!({
            "date": day.date.to_string(), "start": day.span.start().to_string(), "end": day.span.end().to_string(),
            "byte_ms": metered.byte_ms.to_string(), "run_ms": metered.run_ms.to_string(),
        }));
    }
    let intervals = match &query.date {
        None => Value::Null,
        Some(date) => {
            let day = statement.days.iter().find(|(day, _)| day.date.to_string() == *date);
            let (day, _) = day.ok_or_else(|| Problem::unprocessable(format!("{date:?} is not a day of {month}")))?;
            intervals(&api.ledger, organization, &statement, day.span).await?
        }
    };
    Ok(Json(json!({
        "month": month.to_string(),
        "currency": statement.invoice.currency.code(),
        "lines": statement.invoice.lines.iter().map(line).collect::<Vec<_>>(),
        "subtotal": statement.invoice.subtotal.to_string(),
        "rounding": statement.invoice.rounding.cut(DIGITS),
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

/// The intervals of a day in which a file's size stayed the same or a job ran, and the events that began them.
async fn intervals(ledger: &Ledger, organization: Uuid, statement: &Statement, day: Span) -> Result<Value, Problem> {
    let window = Window { period: day, as_of: statement.as_of };
    let used = Used::read(ledger.store().pool(), organization, window).await?;
    let (counted, mut stored, mut ran) = (window.counted(), Vec::new(), Vec::new());
    for (file, changes) in &used.files {
        let events: BTreeMap<_, _> = changes.iter().map(|change| (change.at, change.delta)).collect();
        for segment in segments(changes, counted) {
            if segment.level == 0 || stored.len() >= MAX_INTERVALS {
                continue;
            }
            let began = segment.span.start();
            stored.push(json!({
                "file": file,
                "start": began.to_string(),
                "end": segment.span.end().to_string(),
                "bytes": segment.level.to_string(),
                "byte_ms": (segment.level * segment.span.millis()).to_string(),
                // Null when it was so at the day's beginning already.
                "event": events.get(&began).filter(|_| began > day.start()).map(|delta| {
                    json!({ "occurred_at": began.to_string(), "delta_bytes": delta })
                }),
            }));
        }
    }
    for run in &used.runs {
        let millis = run.run.millis_within(counted, window.as_of);
        if millis == 0 || ran.len() >= MAX_INTERVALS {
            continue;
        }
        ran.push(json!({
            "job": run.job,
            "user": run.user,
            "started_at": run.run.started_at.map(|at| at.to_string()),
            "ended_at": run.run.ended_at.map(|at| at.to_string()),
            "run_ms": millis.to_string(),
        }));
    }
    Ok(json!({ "stored": stored, "ran": ran }))
}
