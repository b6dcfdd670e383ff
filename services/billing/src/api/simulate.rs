//! "What would this plan have cost?", for one account or all of them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::Problem;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, Operated, instant, plans::PlanBody};
use crate::{
    api::question::MAX_PERIOD_MS,
    domain::{money::Amount, plan::PlanVersion, span::Span},
    ledger::{Effect, LedgerError, refused_at},
};

/// How many accounts are simulated in one request.
const PAGE: i64 = 200;

/// What to simulate: a plan that exists, or one that is written out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulationBody {
    /// A plan, with `plan_version`.
    #[serde(default)]
    plan: Option<Uuid>,
    #[serde(default)]
    plan_version: Option<u32>,
    /// Or one that isn't published.
    #[serde(default)]
    definition: Option<PlanBody>,
    /// The period's first instant, RFC 3339.
    from: String,
    /// The first instant after the period, RFC 3339; at most 400 days after `from`.
    to: String,
    /// One organization; all of them if not said, 200 at a time.
    #[serde(default)]
    organization: Option<Uuid>,
    /// `next` of the answer before.
    #[serde(default)]
    after: Option<Uuid>,
}

/// Says what a plan would have cost: who wins, who loses, and the whole effect. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/simulations", tag = "billing administration",
    params(("Idempotency-Key" = String, Header)), request_body = SimulationBody,
    responses((status = 200, body = Object), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem))
)]
pub async fn simulate(
    State(api): State<Api>,
    Operated(command): Operated<SimulationBody>,
) -> Result<Json<Value>, Problem> {
    let body = command.body;
    let plan = match (body.plan, body.plan_version, body.definition) {
        (Some(plan), Some(version), None) => {
            let catalogue = api.ledger.plans.load(plan).await?.state;
            catalogue.version(plan, version).map_err(LedgerError::from)?
        }
        (None, None, Some(definition)) => {
            let key = PlanVersion { plan: "simulated".to_owned(), version: 1 };
            definition.definition()?.plan(key).map_err(|refused| refused_at(&refused))?
        }
        _ => return Err(Problem::unprocessable("say either plan and plan_version, or definition")),
    };
    let said = |pointer: &'static str, text: &str| instant(pointer, Some(text));
    let (Some(from), Some(to)) = (said("/from", &body.from)?, said("/to", &body.to)?) else {
        return Err(Problem::unprocessable("from and to are instants"));
    };
    let period = Span::new(from, to);
    if period.is_empty() || period.millis() > MAX_PERIOD_MS {
        return Err(Problem::unprocessable(format!("the period from {from} to {to} is empty or longer than 400 days")));
    }
    let (organizations, next) = match body.organization {
        Some(organization) => (vec![organization], None),
        None => {
            let page = api.ledger.accounts_after(body.after, plan.currency, PAGE).await?;
            let full = i64::try_from(page.len()).unwrap_or(i64::MAX) >= PAGE;
            let next = page.last().copied().filter(|_| full);
            (page, next)
        }
    };
    let currency = plan.currency;
    let effects = api.ledger.simulate(&organizations, &Arc::new(plan), period, api.ledger.now()).await?;
    let (mut winners, mut losers, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for effect in &effects.effects {
        match difference(effect) {
            same if same.is_zero() => unchanged += 1,
            less if less < Amount::zero(currency) => winners.push(told(effect)),
            _ => losers.push(told(effect)),
        }
    }
    Ok(Json(json!({
        "currency": currency.code(),
        "from": from.to_string(),
        "to": to.to_string(),
        "winners": winners,
        "losers": losers,
        "unchanged": unchanged,
        "skipped": effects.skipped,
        "total_effect": effects.total.to_string(),
        "next": next,
    })))
}

fn difference(effect: &Effect) -> Amount {
    effect.simulated.minus(&effect.actual)
}

fn told(effect: &Effect) -> Value {
    json!({
        "organization": effect.organization,
        "actual": effect.actual.to_string(),
        "simulated": effect.simulated.to_string(),
        "difference": difference(effect).to_string(),
    })
}
