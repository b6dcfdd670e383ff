//! Simulations: the costs of past usage under another plan, for one account or all of them.
//!
//! All accounts are too many for one response. Each response has the totals of all pages so far, because each request passes on the
//! totals of the previous response. So the response without `next` has the totals of all accounts. Inconsistent totals are rejected.

use axum::{Json, extract::State};
use http_kit::Problem;
use rating::{
    calendar::span::Span,
    money::{amount::Amount, currency::Currency},
    pricing::plan::{Plan, PlanVersion},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        access::OperatorCommand, admin::plans::PlanRequest, instant::body_instant, parameters::IdempotencyKey,
        problems::OperatorCommandProblems, report_period::MAX_PERIOD_MS, state::Api,
    },
    invoicing::{
        error::{LedgerError, refused_at},
        simulation::{PlanEffect, SimulationTotals},
    },
};

/// The maximum number of accounts in one request.
const MAX_ACCOUNTS: u32 = 200;
/// The largest count in totals, above any real number of accounts.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// A simulation of a published plan version, or of an unpublished definition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SimulationRequest {
    /// A published plan, together with `plan_version`.
    #[serde(default)]
    plan: Option<Uuid>,
    /// The version of `plan`.
    #[serde(default)]
    plan_version: Option<u32>,
    /// An unpublished plan, in place of `plan` and `plan_version`.
    #[serde(default)]
    definition: Option<PlanRequest>,
    /// First instant of the period (RFC 3339).
    #[schema(example = "2026-02-01T00:00:00Z")]
    from: String,
    /// First instant after the period (RFC 3339), at most 400 days after `from`.
    #[schema(example = "2026-03-01T00:00:00Z")]
    to: String,
    /// The organization to simulate. Default: all organizations, page by page.
    #[serde(default)]
    organization: Option<Uuid>,
    /// The maximum number of accounts on the page, 1 to 200 (default: 200).
    #[serde(default)]
    #[schema(minimum = 1, maximum = 200, example = 200)]
    limit: Option<u32>,
    /// The `next` value of the previous response (default: the first page).
    #[serde(default)]
    after: Option<Uuid>,
    /// The `so_far` value of the previous response. Required with `after`.
    #[serde(default)]
    so_far: Option<SimulationTotalsDocument>,
}

/// The effect of a plan on all accounts of the pages so far.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SimulationTotals)]
pub(in crate::http) struct SimulationTotalsDocument {
    /// The sum of the totals at the accounts' prices.
    #[schema(example = "1000.00")]
    actual: String,
    /// The sum of the totals under the plan.
    #[schema(example = "1100.00")]
    simulated: String,
    /// The simulated sum minus the actual sum.
    #[schema(example = "100.00")]
    effect: String,
    /// The number of accounts that pay less.
    winners: u64,
    /// The number of accounts that pay more.
    losers: u64,
    /// The number of accounts that pay the same.
    unchanged: u64,
    /// The number of accounts that are not comparable, because they are charged in another currency.
    skipped: u64,
}

/// The effect of a plan on the accounts of one page.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SimulationResponse {
    /// ISO 4217 code of all amounts.
    #[schema(example = "EUR")]
    currency: &'static str,
    /// First instant of the period.
    #[schema(value_type = String, format = DateTime)]
    from: String,
    /// First instant after the period.
    #[schema(value_type = String, format = DateTime)]
    to: String,
    /// The accounts that pay less.
    winners: Vec<PlanEffectResponse>,
    /// The accounts that pay more.
    losers: Vec<PlanEffectResponse>,
    so_far: SimulationTotalsDocument,
    /// The `after` of the next request. Null on the last page.
    next: Option<Uuid>,
}

/// The effect of a plan on one account.
#[derive(Debug, Serialize, ToSchema)]
struct PlanEffectResponse {
    organization: Uuid,
    /// The total at the account's prices.
    #[schema(example = "100.00")]
    actual: String,
    /// The total under the plan.
    #[schema(example = "80.00")]
    simulated: String,
    /// The simulated total minus the actual total.
    #[schema(example = "-20.00")]
    difference: String,
}

impl From<&PlanEffect> for PlanEffectResponse {
    fn from(effect: &PlanEffect) -> Self {
        Self {
            organization: effect.organization,
            actual: effect.actual.to_string(),
            simulated: effect.simulated.to_string(),
            difference: effect.difference().to_string(),
        }
    }
}

impl From<&SimulationTotals> for SimulationTotalsDocument {
    fn from(totals: &SimulationTotals) -> Self {
        Self {
            actual: totals.actual.to_string(),
            simulated: totals.simulated.to_string(),
            effect: totals.effect().to_string(),
            winners: totals.winners,
            losers: totals.losers,
            unchanged: totals.unchanged,
            skipped: totals.skipped,
        }
    }
}

impl SimulationTotalsDocument {
    /// Parses and checks totals that a client passes on.
    fn totals(&self, currency: Currency) -> Result<SimulationTotals, Problem> {
        let amount = |pointer: &'static str, text: &str| {
            Amount::read(text, currency).map_err(|error| invalid(pointer, error.to_string()))
        };
        let count = |pointer: &'static str, count: u64| {
            if count > MAX_COUNT { Err(invalid(pointer, format!("{count} exceeds {MAX_COUNT}"))) } else { Ok(count) }
        };
        let totals = SimulationTotals {
            actual: amount("/so_far/actual", &self.actual)?,
            simulated: amount("/so_far/simulated", &self.simulated)?,
            winners: count("/so_far/winners", self.winners)?,
            losers: count("/so_far/losers", self.losers)?,
            unchanged: count("/so_far/unchanged", self.unchanged)?,
            skipped: count("/so_far/skipped", self.skipped)?,
        };
        let (effect, difference) = (amount("/so_far/effect", &self.effect)?, totals.effect());
        if effect != difference {
            return Err(invalid("/so_far/effect", format!("must be simulated minus actual, {difference}")));
        }
        Ok(totals)
    }
}

/// Simulate a plan
///
/// Reprices past usage under a plan, month by month, for one account or all of them. Returns the accounts of one page that pay more or
/// less, and the totals of all pages so far. Changes nothing. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/simulations", tag = "billing administration",
    params(IdempotencyKey), request_body = SimulationRequest,
    responses(
        (status = 200, description = "The effect of the plan.", body = SimulationResponse),
        (status = 404, description = "The plan, its version or the account does not exist.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, the period is empty or longer than 400 days, or the totals are \
            inconsistent.", body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn simulate_plans(
    State(api): State<Api>,
    OperatorCommand(command): OperatorCommand<SimulationRequest>,
) -> Result<Json<SimulationResponse>, Problem> {
    let body = command.body;
    let plan = simulated_plan(&api, body.plan, body.plan_version, body.definition).await?;
    let (from, to) = (body_instant("/from", &body.from)?, body_instant("/to", &body.to)?);
    let period = Span::new(from, to);
    if period.is_empty() || period.millis() > MAX_PERIOD_MS {
        return Err(Problem::unprocessable(format!("the period from {from} to {to} is empty or longer than 400 days")));
    }
    let totals = match (body.after, &body.so_far) {
        (None, None) => SimulationTotals::none(plan.currency),
        (Some(_), Some(so_far)) => so_far.totals(plan.currency)?,
        (Some(_), None) => return Err(invalid("/so_far", "is missing; after requires it".to_owned())),
        (None, Some(_)) => return Err(invalid("/after", "is missing; so_far requires it".to_owned())),
    };
    let limit = match body.limit {
        None => MAX_ACCOUNTS,
        Some(limit) if (1..=MAX_ACCOUNTS).contains(&limit) => limit,
        Some(limit) => return Err(invalid("/limit", format!("{limit} is not from 1 to {MAX_ACCOUNTS}"))),
    };
    let (organizations, next) = match (body.organization, body.after) {
        (Some(organization), None) => (vec![organization], None),
        (Some(_), Some(_)) => return Err(invalid("/after", "cannot be combined with organization".to_owned())),
        (None, after) => page(&api, after, limit).await?,
    };
    let simulation = api.ledger.simulate(&organizations, &plan, period, api.ledger.now(), totals).await?;
    let (winners, losers): (Vec<_>, Vec<_>) = simulation
        .effects
        .iter()
        .filter(|effect| effect.actual != effect.simulated)
        .partition(|effect| effect.simulated < effect.actual);
    Ok(Json(SimulationResponse {
        currency: plan.currency.code(),
        from: from.to_string(),
        to: to.to_string(),
        winners: winners.into_iter().map(PlanEffectResponse::from).collect(),
        losers: losers.into_iter().map(PlanEffectResponse::from).collect(),
        so_far: (&simulation.totals).into(),
        next,
    }))
}

/// Returns a published plan version, or a plan by its definition.
async fn simulated_plan(
    api: &Api,
    plan: Option<Uuid>,
    version: Option<u32>,
    definition: Option<PlanRequest>,
) -> Result<Plan, Problem> {
    match (plan, version, definition) {
        (Some(plan), Some(version), None) => {
            let catalogue = api.ledger.plans.load(plan).await?.state;
            Ok(catalogue.version(plan, version).map_err(LedgerError::from)?)
        }
        (None, None, Some(definition)) => {
            let key = PlanVersion { plan: "simulated".to_owned(), version: 1 };
            definition.definition()?.plan(key).map_err(|refused| refused_at(&refused))
        }
        _ => Err(Problem::unprocessable("either plan and plan_version or definition must be given")),
    }
}

/// Returns the accounts of a page, and the last one of them if there is a next page.
async fn page(api: &Api, after: Option<Uuid>, limit: u32) -> Result<(Vec<Uuid>, Option<Uuid>), Problem> {
    let mut page = api.ledger.account_ids(after, i64::from(limit) + 1).await?;
    let has_next = usize::try_from(limit).is_ok_and(|limit| page.len() > limit);
    if has_next {
        page.pop();
    }
    let next = page.last().copied().filter(|_| has_next);
    Ok((page, next))
}

fn invalid(pointer: &'static str, detail: String) -> Problem {
    Problem::unprocessable(format!("{pointer}: {detail}")).at(pointer, detail)
}
