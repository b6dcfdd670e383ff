//! "What would this plan have cost?", for one account or all of them.
//!
//! The problem: all accounts are too many for one answer, and what a page of them says is not what a change of prices comes to.
//!
//! The invariant: each answer carries sums over all pages up to its own, since each question hands on those of the answer before; so
//! the answer without `next` has those of all accounts. Sums that can't be such sums are refused.

use axum::{Json, extract::State};
use http_kit::Problem;
use rating::{
    calendar::span::Span,
    money::{amount::Amount, currency::Currency},
    pricing::plan::PlanVersion,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{access::Operated, admin::plans::PlanBody, instant::instant, question::MAX_PERIOD_MS, state::Api},
    invoicing::{
        error::{LedgerError, refused_at},
        simulation::{Effect, Sums},
    },
};

/// How many accounts are simulated in one request at most.
const PAGE: u32 = 200;
/// More accounts than there will be.
const MOST: u64 = 1_000_000_000_000;

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
    /// One organization; all of them if not said, by pages.
    #[serde(default)]
    organization: Option<Uuid>,
    /// How many accounts at a time, at most 200; 200 if not said.
    #[serde(default)]
    limit: Option<u32>,
    /// `next` of the answer before.
    #[serde(default)]
    after: Option<Uuid>,
    /// `so_far` of the answer before; goes with `after`.
    #[serde(default)]
    so_far: Option<SoFar>,
}

/// What a plan changes for all accounts since the first page.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SoFar {
    /// The sum of their totals by what they are charged by.
    actual: String,
    /// The sum of their totals by the simulated plan.
    simulated: String,
    /// The difference: what all of them pay more.
    effect: String,
    /// How many pay less.
    winners: u64,
    /// How many pay more.
    losers: u64,
    /// How many pay the same.
    unchanged: u64,
    /// How many can't be compared: they are charged in another currency.
    skipped: u64,
}

impl SoFar {
    fn of(sums: &Sums) -> Self {
        Self {
            actual: sums.actual.to_string(),
            simulated: sums.simulated.to_string(),
            effect: sums.effect().to_string(),
            winners: sums.winners,
            losers: sums.losers,
            unchanged: sums.unchanged,
            skipped: sums.skipped,
        }
    }

    fn sums(&self, currency: Currency) -> Result<Sums, Problem> {
        let amount = |pointer: &'static str, text: &str| {
            Amount::parse(text, currency).map_err(|error| refused(pointer, error.to_string()))
        };
        let count = |pointer: &'static str, count: u64| {
            if count > MOST { Err(refused(pointer, format!("{count} are more than {MOST}"))) } else { Ok(count) }
        };
        let sums = Sums {
            actual: amount("/so_far/actual", &self.actual)?,
            simulated: amount("/so_far/simulated", &self.simulated)?,
            winners: count("/so_far/winners", self.winners)?,
            losers: count("/so_far/losers", self.losers)?,
            unchanged: count("/so_far/unchanged", self.unchanged)?,
            skipped: count("/so_far/skipped", self.skipped)?,
        };
        let (effect, difference) = (amount("/so_far/effect", &self.effect)?, sums.effect());
        if effect != difference {
            return Err(refused("/so_far/effect", format!("is not {difference}, simulated without actual")));
        }
        Ok(sums)
    }
}

/// Says what a plan would have cost, month by month: who wins, who loses, and the effect on all up to this page. For operators.
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
    let currency = plan.currency;
    let so_far = match (body.after, &body.so_far) {
        (None, None) => Sums::none(currency),
        (Some(_), Some(so_far)) => so_far.sums(currency)?,
        (Some(_), None) => return Err(refused("/so_far", "is missing; it goes with after".to_owned())),
        (None, Some(_)) => return Err(refused("/after", "is missing; it goes with so_far".to_owned())),
    };
    let limit = match body.limit {
        None => PAGE,
        Some(limit) if (1..=PAGE).contains(&limit) => limit,
        Some(limit) => return Err(refused("/limit", format!("{limit} is not 1 to {PAGE}"))),
    };
    let (organizations, next) = match (body.organization, body.after) {
        (Some(organization), None) => (vec![organization], None),
        (Some(_), Some(_)) => return Err(refused("/after", "doesn't belong to one organization".to_owned())),
        (None, after) => page(&api, after, limit).await?,
    };
    let effects = api.ledger.simulate(&organizations, &plan, period, api.ledger.now(), so_far).await?;
    let (winners, losers): (Vec<_>, Vec<_>) = effects
        .effects
        .iter()
        .filter(|effect| effect.actual != effect.simulated)
        .partition(|effect| effect.simulated < effect.actual);
    Ok(Json(json!({
        "currency": currency.code(),
        "from": from.to_string(),
        "to": to.to_string(),
        "winners": winners.into_iter().map(told).collect::<Vec<_>>(),
        "losers": losers.into_iter().map(told).collect::<Vec<_>>(),
        "so_far": SoFar::of(&effects.so_far),
        "next": next,
    })))
}

/// The accounts of a page, and the last one of it if more follow.
async fn page(api: &Api, after: Option<Uuid>, limit: u32) -> Result<(Vec<Uuid>, Option<Uuid>), Problem> {
    let mut page = api.ledger.accounts_after(after, i64::from(limit) + 1).await?;
    let more = usize::try_from(limit).is_ok_and(|limit| page.len() > limit);
    if more {
        page.pop();
    }
    let next = page.last().copied().filter(|_| more);
    Ok((page, next))
}

fn refused(pointer: &'static str, detail: String) -> Problem {
    Problem::unprocessable(format!("{pointer}: {detail}")).at(pointer, detail)
}

fn told(effect: &Effect) -> Value {
    json!({
        "organization": effect.organization,
        "actual": effect.actual.to_string(),
        "simulated": effect.simulated.to_string(),
        "difference": effect.difference().to_string(),
    })
}
