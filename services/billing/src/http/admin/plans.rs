//! Plans: publishing, listing and retiring, for operators.

use std::sync::Arc;

use axum::{Json, extract::State};
use contracts::plan::{Charge, PlanPublished, Tier};
use http_kit::{ApiPath, ApiQuery, Caller, CommandResponse, Page, PageQuery, Problem, Role};
use rating::{
    money::decimal::Decimal,
    pricing::{
        components::ChargeDefinition,
        plan::PlanVersion,
        plan_aggregate::{PlanCatalogue, PlanCommand, PlanDefinition, require_operators_own},
    },
    sharing::rule::Rule,
};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        access::OperatorCommand,
        admin::charge_request::ChargeRequest,
        parameters::{IdempotencyKey, PlanPath},
        problems::{OperatorCommandProblems, OperatorReadProblems},
        state::Api,
    },
    invoicing::error::{LedgerError, command_problem, refused_at},
};

/// A version of a plan.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PlanRequest {
    /// The name of the plan, 1 to 200 characters.
    #[schema(example = "Team")]
    name: String,
    /// ISO 4217 code of all prices.
    #[schema(example = "EUR")]
    currency: String,
    /// How linked jobs share a file (default: `split`). `split`: in equal shares. `unshared_only`: a file that jobs of several users
    /// share is attributed to no job.
    #[serde(default)]
    #[schema(pattern = "^(split|unshared_only)$", example = "split")]
    split: Option<String>,
    /// The prices of the meters, at most one for each. A meter without a price is free.
    charges: Vec<ChargeRequest>,
    /// The minimum charge for a calendar month, before tax (default: none).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5.00")]
    minimum: Option<Decimal>,
    /// The tax as a percentage (default: none).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "21")]
    tax_percent: Option<Decimal>,
}

impl PlanRequest {
    /// Returns the definition of the plan version.
    ///
    /// # Errors
    /// 422 at the first invalid field.
    pub(super) fn definition(self) -> Result<PlanDefinition, Problem> {
        let split = self.split.as_deref().map_or(Ok(Rule::Split), Rule::named);
        let definition = PlanDefinition {
            name: self.name,
            currency: self.currency,
            split: split.map_err(|refused| refused_at(&refused))?,
            charges: self.charges.into_iter().map(ChargeDefinition::from).collect(),
            minimum: self.minimum,
            tax_percent: self.tax_percent,
        };
        let unpublished = PlanVersion { plan: String::new(), version: 0 };
        definition.plan(unpublished).map_err(|refused| refused_at(&refused))?;
        Ok(definition)
    }
}

/// The reason of a change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReasonRequest {
    /// The reason, 1 to 200 characters.
    #[schema(example = "wrong billing address")]
    pub(super) reason: String,
}

/// A plan in a list.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(in crate::http) struct PlanSummary {
    id: Uuid,
    name: String,
    /// ISO 4217 code of all prices.
    #[schema(example = "EUR")]
    currency: String,
    /// The number of the newest version.
    newest: i32,
    /// Whether the plan takes no new customers.
    retired: bool,
}

/// A plan with all its versions.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PlanResponse {
    id: Uuid,
    /// The reason why the plan was retired. Null unless it is retired.
    retired: Option<String>,
    /// The versions, from 1.
    versions: Vec<PlanVersionResponse>,
    /// The instant of the response.
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
}

/// A published version of a plan.
#[derive(Debug, Serialize, ToSchema)]
struct PlanVersionResponse {
    plan_version: i32,
    name: String,
    /// ISO 4217 code of all prices.
    #[schema(example = "EUR")]
    currency: String,
    /// `split` or `unshared_only`.
    #[schema(example = "split")]
    split: String,
    charges: Vec<PlanChargeResponse>,
    /// The minimum charge for a calendar month, before tax.
    #[schema(example = "5.00")]
    minimum: Option<String>,
    /// The tax as a percentage.
    #[schema(example = "21")]
    tax_percent: Option<String>,
}

/// The price of one meter. Fields of other models are null.
#[derive(Debug, Serialize, ToSchema)]
struct PlanChargeResponse {
    /// `storage` or `compute`.
    #[schema(example = "storage")]
    meter: String,
    /// `GB.h`, `GiB.h` or `s`.
    #[schema(example = "GB.h")]
    unit: String,
    /// `flat`, `package`, `graduated` or `volume`.
    #[schema(example = "flat")]
    model: String,
    tiers: Option<Vec<PlanTierResponse>>,
    #[schema(example = "0.0001")]
    unit_price: Option<String>,
    free: Option<String>,
    package_size: Option<String>,
    package_price: Option<String>,
}

/// A tier of a price.
#[derive(Debug, Serialize, ToSchema)]
struct PlanTierResponse {
    /// The largest quantity in the tier, inclusive. Null for the last tier.
    up_to: Option<String>,
    unit_price: String,
    /// A fee that is due once when usage reaches the tier.
    flat_fee: Option<String>,
}

impl From<&PlanPublished> for PlanVersionResponse {
    fn from(version: &PlanPublished) -> Self {
        let version = version.clone();
        Self {
            plan_version: version.plan_version,
            name: version.name,
            currency: version.currency,
            split: version.split,
            charges: version.charges.into_iter().map(PlanChargeResponse::from).collect(),
            minimum: version.minimum,
            tax_percent: version.tax_percent,
        }
    }
}

impl From<Charge> for PlanChargeResponse {
    fn from(charge: Charge) -> Self {
        Self {
            meter: charge.meter,
            unit: charge.unit,
            model: charge.model,
            tiers: charge.tiers.map(|tiers| tiers.into_iter().map(PlanTierResponse::from).collect()),
            unit_price: charge.unit_price,
            free: charge.free,
            package_size: charge.package_size,
            package_price: charge.package_price,
        }
    }
}

impl From<Tier> for PlanTierResponse {
    fn from(Tier { up_to, unit_price, flat_fee }: Tier) -> Self {
        Self { up_to, unit_price, flat_fee }
    }
}

/// Publish a plan
///
/// Creates a plan with its first version. A version never changes. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/plans", tag = "billing administration",
    params(IdempotencyKey), request_body = PlanRequest,
    responses(
        (status = 201, description = "The plan is published.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the plan: `\"1\"`."),
            ("Location" = String, description = "Path of the plan."),
        )),
        (status = 422, description = "The plan is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn publish_plan(
    State(api): State<Api>,
    OperatorCommand(command): OperatorCommand<PlanRequest>,
) -> Result<CommandResponse, Problem> {
    let publish = PlanCommand::Publish(command.body.definition()?);
    let executed =
        api.ledger.plans.create(Uuid::now_v7(), &publish, &command.context).await.map_err(command_problem)?;
    Ok(CommandResponse::created(&executed, |id| format!("/api/v1/admin/plans/{id}")))
}

/// Publish a plan version
///
/// Adds a version to a plan. Accounts with an earlier version keep it. The standard plan follows the installation's settings and
/// takes no other versions. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/plans/{plan}/versions", tag = "billing administration",
    params(PlanPath, IdempotencyKey), request_body = PlanRequest,
    responses(
        (status = 200, description = "The version is published.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the plan: `\"2\"`."),
        )),
        (status = 404, description = "The plan does not exist.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The plan is retired, or is the standard plan.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The plan is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn publish_plan_version(
    State(api): State<Api>,
    ApiPath(PlanPath { plan }): ApiPath<PlanPath>,
    OperatorCommand(command): OperatorCommand<PlanRequest>,
) -> Result<CommandResponse, Problem> {
    require_operators_own(plan).map_err(LedgerError::from)?;
    require_plan(&api, plan).await?;
    let publish = PlanCommand::Publish(command.body.definition()?);
    Ok(api.ledger.plans.execute(plan, &publish, &command.context).await.map_err(command_problem)?.into())
}

/// Retire a plan
///
/// Closes a plan to new customers. Accounts with the plan keep it. The standard plan cannot be retired, because new accounts get it.
/// Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/plans/{plan}/retire", tag = "billing administration",
    params(PlanPath, IdempotencyKey), request_body = ReasonRequest,
    responses(
        (status = 200, description = "The plan is retired.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the plan: `\"3\"`."),
        )),
        (status = 404, description = "The plan does not exist.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The plan is the standard plan.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The reason is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn retire_plan(
    State(api): State<Api>,
    ApiPath(PlanPath { plan }): ApiPath<PlanPath>,
    OperatorCommand(command): OperatorCommand<ReasonRequest>,
) -> Result<CommandResponse, Problem> {
    require_operators_own(plan).map_err(LedgerError::from)?;
    let retire = PlanCommand::Retire { reason: command.body.reason };
    Ok(api.ledger.plans.execute(plan, &retire, &command.context).await.map_err(command_problem)?.into())
}

/// List plans
///
/// Returns all plans, newest first, including retired ones. Requires the role `operator`.
#[utoipa::path(
    get, path = "/api/v1/admin/plans", tag = "billing administration", params(PageQuery),
    responses(
        (status = 200, description = "One page of plans.", body = Page<PlanSummary>),
        OperatorReadProblems,
    )
)]
pub(in crate::http) async fn list_plans(
    State(api): State<Api>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<PlanSummary>>, Problem> {
    caller.at_least(Role::Operator)?;
    let list = "select id, name, currency, newest, retired from plans where id < $1 order by id desc limit $2";
    let page = Page::fetch(
        &page,
        |plan: &PlanSummary| plan.id,
        |before: Option<Uuid>, limit| {
            let rows = sqlx::query_as::<_, PlanSummary>(list);
            rows.bind(before.unwrap_or(Uuid::max())).bind(limit).fetch_all(&api.pool)
        },
    );
    Ok(Json(page.await?))
}

/// Get a plan
///
/// Returns a plan with all its versions. Requires the role `operator`.
#[utoipa::path(
    get, path = "/api/v1/admin/plans/{plan}", tag = "billing administration", params(PlanPath),
    responses(
        (status = 200, description = "The plan.", body = PlanResponse),
        (status = 404, description = "The plan does not exist.", body = Problem, content_type = "application/problem+json"),
        OperatorReadProblems,
    )
)]
pub(in crate::http) async fn get_plan(
    State(api): State<Api>,
    ApiPath(PlanPath { plan }): ApiPath<PlanPath>,
    caller: Caller,
) -> Result<Json<PlanResponse>, Problem> {
    caller.at_least(Role::Operator)?;
    let catalogue = require_plan(&api, plan).await?;
    Ok(Json(PlanResponse {
        id: plan,
        retired: catalogue.retired().map(str::to_owned),
        versions: catalogue.versions().iter().map(PlanVersionResponse::from).collect(),
        as_of: api.ledger.now().to_string(),
    }))
}

async fn require_plan(api: &Api, plan: Uuid) -> Result<Arc<PlanCatalogue>, Problem> {
    let catalogue = api.ledger.plans.load(plan).await?.state;
    if !catalogue.exists() {
        return Err(Problem::not_found(format!("plan {plan} does not exist")));
    }
    Ok(catalogue)
}
