//! Budgets: what an organization wants to spend in a month, and whether its jobs may go on.

use axum::{Json, extract::State};
use http_kit::{ApiPath, Caller, Command, CommandResponse, Problem, Role};
use rating::{
    account::{AccountCommand, AccountError},
    money::decimal::Decimal,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{access::Viewed, state::Api},
    invoicing::error::{LedgerError, command_problem},
};

/// A budget to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetBody {
    /// How much in a month, in the account's currency; null for no budget.
    #[schema(value_type = Option<String>)]
    amount: Option<Decimal>,
    /// At how many hundredths of it an alert is due: at most 20, from 1 to 1000.
    #[serde(default)]
    thresholds: Vec<i32>,
    /// Whether no new job is queued once it is used up.
    #[serde(default)]
    hard_stop: bool,
}

/// Shows an organization's budget, and which thresholds were reached.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/budget", tag = "billing", params(("org" = Uuid, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem))
)]
pub async fn read(State(api): State<Api>, Viewed(organization): Viewed) -> Result<Json<Value>, Problem> {
    let account = api.ledger.account(organization).await?;
    let month = api.ledger.current_month(&account)?;
    let budget = account.budget();
    let alert = |(month, kind, threshold): &(String, String, i32)| json!({ "month": month, "kind": kind, "threshold": threshold });
    Ok(Json(json!({
        "month": month.to_string(),
        "amount": budget.and_then(|budget| budget.amount.clone()),
        "thresholds": budget.map(|budget| budget.thresholds.clone()).unwrap_or_default(),
        "hard_stop": budget.is_some_and(|budget| budget.hard_stop),
        "alerts": account.alerts().map(alert).collect::<Vec<_>>(),
        "jobs_allowed": account.jobs_allowed(month),
    })))
}

/// Sets an organization's budget.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/budget", tag = "billing",
    params(("org" = Uuid, Path), ("If-Match" = Option<String>, Header)), request_body = BudgetBody,
    responses((status = 200, body = CommandResponse), (status = 403, description = "Needs the role admin", body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub async fn set(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<BudgetBody>,
) -> Result<CommandResponse, Problem> {
    command.caller.in_organization(organization)?;
    command.caller.at_least(Role::Admin)?;
    let BudgetBody { amount, thresholds, hard_stop } = command.body;
    let set = AccountCommand::SetBudget { amount, thresholds, hard_stop, now: api.ledger.now() };
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.accounts.execute(organization, &set, &context).await.map_err(command_problem)?.into())
}

/// Whether an organization's jobs may go on.
#[derive(Debug, Serialize)]
pub struct Standing {
    /// Whether new jobs may be queued.
    jobs_allowed: bool,
}

/// Asked by the job service before it queues a job. An organization that has no account yet may go on.
pub async fn standing(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
) -> Result<Json<Standing>, Problem> {
    caller.at_least(Role::Service)?;
    let account = match api.ledger.account(organization).await {
        Err(LedgerError::Account(AccountError::NotFound)) => return Ok(Json(Standing { jobs_allowed: true })),
        account => account?,
    };
    let month = api.ledger.current_month(&account)?;
    Ok(Json(Standing { jobs_allowed: account.jobs_allowed(month) }))
}
