//! What usage costs.

use axum::{Json, extract::State};
use epoch::Timestamp;
use serde::Serialize;
use service_kit::{ApiPath, ApiQuery, Caller, Problem, Role};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, question::QuestionQuery, usage::Usage};
use crate::domain::{money::exact_cost_of_run, prices::Line};

/// What an organization's usage in a period costs, at the installation's prices.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsAnswer {
    organization: Uuid,
    #[schema(value_type = String, format = DateTime)]
    from: String,
    #[schema(value_type = String, format = DateTime)]
    to: String,
    /// What happened later doesn't count; what still runs or is still stored counts up to here.
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
    /// What was recorded later is left out; null when nothing is.
    #[schema(value_type = Option<String>, format = DateTime)]
    known_at: Option<String>,
    time_zone: String,
    /// As a code of ISO 4217.
    #[schema(example = "EUR")]
    currency: &'static str,
    /// Storage, then compute.
    lines: Vec<LineAnswer>,
    /// The sum of the lines.
    #[schema(example = "7.62")]
    total: String,
    /// Whether something still runs or is still stored that counts only up to `as_of`.
    provisional: bool,
    /// What the run time of the first 200 jobs costs, by id.
    jobs: Vec<JobCost>,
    /// Whether there are more jobs; rows of usage tell all of them.
    more_jobs: bool,
}

/// What one meter costs.
#[derive(Debug, Serialize, ToSchema)]
struct LineAnswer {
    /// `storage` or `compute`.
    meter: &'static str,
    /// `GB.h` (10⁹ bytes for an hour) or `s`.
    unit: &'static str,
    /// Cut after 12 digits; the amount is of the exact quantity.
    #[schema(example = "47.95000157308")]
    quantity: String,
    #[schema(example = "0.0001")]
    unit_price: String,
    /// Rounded once, half away from zero, to the currency's digits.
    #[schema(example = "0.00")]
    amount: String,
}

/// What a job's run time costs.
#[derive(Debug, Serialize, ToSchema)]
struct JobCost {
    job: Uuid,
    user: Option<Uuid>,
    run_ms: String,
    /// Exact, not rounded.
    #[schema(example = "0.3603625")]
    amount: String,
}

/// Costs of a period
///
/// Usage at the installation's prices for a gigabyte-hour and a second. Takes the parameters of usage.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{org}/costs",
    tag = "billing",
    params(("org" = Uuid, Path, description = "The organization"), QuestionQuery),
    responses(
        (status = 200, body = CostsAnswer),
        (status = 400, description = "A parameter is unknown or isn't an instant", body = Problem),
        (status = 404, description = "There is no such organization for the caller", body = Problem),
        (status = 422, description = "The period is empty or longer than 400 days, or the time zone is unknown",
            body = Problem),
    )
)]
pub async fn costs(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(query): ApiQuery<QuestionQuery>,
) -> Result<Json<CostsAnswer>, Problem> {
    caller.in_organization(organization)?;
    caller.at_least(Role::Viewer)?;
    let question = query.question(Timestamp::now())?;
    let usage = Usage::read(&api.pool, organization, &question).await?;
    let provisional = usage.provisional();
    let costs = api.prices.costs(usage.byte_ms(), usage.run_ms());
    let more_jobs = usage.jobs.next.is_some();
    let mut jobs = Vec::new();
    for job in usage.jobs.items {
        let amount = exact_cost_of_run(job.run_ms, &api.prices.second);
        jobs.push(JobCost { job: job.job, user: job.user, run_ms: job.run_ms.to_string(), amount });
    }
    let period = question.window.period;
    Ok(Json(CostsAnswer {
        organization,
        from: period.start().to_string(),
        to: period.end().to_string(),
        as_of: question.window.as_of.to_string(),
        known_at: question.known_at.map(|known_at| known_at.to_string()),
        time_zone: question.time_zone,
        currency: api.prices.currency.code(),
        lines: costs.lines.into_iter().map(LineAnswer::from).collect(),
        total: costs.total.to_string(),
        provisional,
        jobs,
        more_jobs,
    }))
}

impl From<Line> for LineAnswer {
    fn from(line: Line) -> Self {
        Self {
            meter: line.meter,
            unit: line.quantity.unit.symbol(),
            quantity: line.quantity.to_string(),
            unit_price: line.unit_price.to_string(),
            amount: line.amount.to_string(),
        }
    }
}
