//! Plans, for operators: publish, look at, retire.

use std::sync::Arc;

use axum::{Json, extract::State};
use http_kit::{ApiPath, ApiQuery, Caller, CommandResponse, Page, PageQuery, Problem, Role};
use rating::{
    money::decimal::Decimal,
    pricing::{
        components::ChargeDefinition,
        plan::PlanVersion,
        plan_aggregate::{PlanCatalogue, PlanCommand, PlanDefinition, require_operator_managed},
    },
    sharing::rule::SharingRule,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{access::Operated, state::Api},
    invoicing::error::{LedgerError, command_problem, refused_at},
};

/// A version of a plan to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// What people call it: 1 to 200 characters.
    name: String,
    /// What all prices are in, as a code of ISO 4217.
    #[schema(example = "EUR")]
    currency: String,
    /// How files are shared by the jobs that use them: `split` (if not said) or `unshared_only`.
    #[serde(default)]
    split: Option<String>,
    /// What each meter costs; as in the documents that `billing rate` reads.
    #[schema(value_type = Vec<Object>)]
    charges: Vec<ChargeDefinition>,
    /// What a month costs at least, before tax.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5.00")]
    minimum: Option<Decimal>,
    /// Hundredths that are put on as tax.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "21")]
    tax_percent: Option<Decimal>,
}

impl PlanBody {
    /// The definition that is meant.
    ///
    /// # Errors
    /// 422 with the place.
    pub(super) fn definition(self) -> Result<PlanDefinition, Problem> {
        let split = self.split.as_deref().map_or(Ok(SharingRule::Split), SharingRule::parse);
        let definition = PlanDefinition {
            name: self.name,
            currency: self.currency,
            split: split.map_err(|refused| refused_at(&refused))?,
            charges: self.charges,
            minimum: self.minimum,
            tax_percent: self.tax_percent,
        };
        let nowhere = PlanVersion { plan: String::new(), version: 0 };
        definition.plan(nowhere).map_err(|refused| refused_at(&refused))?;
        Ok(definition)
    }
}

/// Why something is done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// In words for people, 1 to 200 characters.
    pub(super) reason: String,
}

/// A plan, as lists show it.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct PlanSummary {
    id: Uuid,
    name: String,
    currency: String,
    /// The number of its newest version.
    newest: i32,
    /// Whether it takes no new customers.
    retired: bool,
}

/// Publishes a new plan. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/plans", tag = "billing administration",
    params(("Idempotency-Key" = String, Header)), request_body = PlanBody,
    responses((status = 201, body = CommandResponse), (status = 403, body = Problem), (status = 422, body = Problem))
)]
pub async fn publish(
    State(api): State<Api>,
    Operated(command): Operated<PlanBody>,
) -> Result<CommandResponse, Problem> {
    let publish = PlanCommand::Publish(command.body.definition()?);
    let executed =
        api.ledger.plans.create(Uuid::now_v7(), &publish, &command.context).await.map_err(command_problem)?;
    Ok(CommandResponse::created(&executed, |id| format!("/api/v1/admin/plans/{id}")))
}

/// Publishes a new version of a plan. Whoever has an earlier one keeps it. The standard plan's follow the settings. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/plans/{plan}/versions", tag = "billing administration",
    params(("plan" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = PlanBody,
    responses((status = 200, body = CommandResponse), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem))
)]
pub async fn publish_version(
    State(api): State<Api>,
    ApiPath(plan): ApiPath<Uuid>,
    Operated(command): Operated<PlanBody>,
) -> Result<CommandResponse, Problem> {
    require_operator_managed(plan).map_err(LedgerError::from)?;
    require_plan(&api, plan).await?;
    let publish = PlanCommand::Publish(command.body.definition()?);
    Ok(api.ledger.plans.execute(plan, &publish, &command.context).await.map_err(command_problem)?.into())
}

/// Retires a plan: nobody new gets it; who has it keeps it. The standard plan stays, since accounts are opened by it. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/plans/{plan}/retire", tag = "billing administration",
    params(("plan" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = ReasonBody,
    responses((status = 200, body = CommandResponse), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub async fn retire(
    State(api): State<Api>,
    ApiPath(plan): ApiPath<Uuid>,
    Operated(command): Operated<ReasonBody>,
) -> Result<CommandResponse, Problem> {
    require_operator_managed(plan).map_err(LedgerError::from)?;
    let retire = PlanCommand::Retire { reason: command.body.reason };
    Ok(api.ledger.plans.execute(plan, &retire, &command.context).await.map_err(command_problem)?.into())
}

/// Lists plans, newest first. For operators.
#[utoipa::path(
    get, path = "/api/v1/admin/plans", tag = "billing administration", params(PageQuery),
    responses((status = 200, body = Page<PlanSummary>), (status = 403, body = Problem))
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<PlanSummary>>, Problem> {
    caller.at_least(Role::Operator)?;
    let (limit, before) = (page.limit()?, page.after::<Uuid>()?.unwrap_or(Uuid::max()));
    let list = "select id, name, currency, newest, retired from plans where id < $1 order by id desc limit $2";
    let fetched = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = sqlx::query_as::<_, PlanSummary>(list).bind(before).bind(fetched).fetch_all(&api.pool).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id)?))
}

/// Shows a plan with all its versions. For operators.
#[utoipa::path(
    get, path = "/api/v1/admin/plans/{plan}", tag = "billing administration", params(("plan" = Uuid, Path)),
    responses((status = 200, body = Object), (status = 403, body = Problem), (status = 404, body = Problem))
)]
pub async fn read(
    State(api): State<Api>,
    ApiPath(plan): ApiPath<Uuid>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    caller.at_least(Role::Operator)?;
    let catalogue = require_plan(&api, plan).await?;
    Ok(Json(json!({
        "id": plan,
        "retired": catalogue.retired(),
        "versions": catalogue.versions(),
        "as_of": api.ledger.now().to_string(),
    })))
}

async fn require_plan(api: &Api, plan: Uuid) -> Result<Arc<PlanCatalogue>, Problem> {
    let catalogue = api.ledger.plans.load(plan).await?.state;
    if !catalogue.exists() {
        return Err(Problem::not_found(format!("plan {plan} does not exist")));
    }
    Ok(catalogue)
}
