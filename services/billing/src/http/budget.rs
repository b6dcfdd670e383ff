//! Budgets: an organization's monthly spending limit and its alerts.

use axum::{Json, extract::State};
use http_kit::{ApiPath, Caller, Command, CommandResponse, Problem, Role, access::require};
use rating::{
    account::{AccountCommand, AccountError},
    money::decimal::Decimal,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        access::ViewedOrganization,
        parameters::{IfMatch, OrganizationPath},
        problems::{AdminCommandProblems, ReadProblems},
        state::Api,
    },
    invoicing::error::{LedgerError, command_problem},
};

/// A new monthly budget.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetRequest {
    /// The limit for each calendar month, in the account's currency. Null removes the budget.
    #[schema(value_type = Option<String>, example = "500.00")]
    amount: Option<Decimal>,
    /// Percentages of the amount that raise an alert: at most 20, each from 1 to 1000 (default: none).
    #[serde(default)]
    #[schema(example = json!([50, 80, 100]))]
    thresholds: Vec<i32>,
    /// Stops queuing new jobs once the month's costs reach the amount (default: false).
    #[serde(default)]
    hard_stop: bool,
}

/// A monthly budget and its alerts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetResponse {
    /// The account's current calendar month.
    #[schema(example = "2026-03")]
    month: String,
    /// The limit for each calendar month. Null without a budget.
    #[schema(example = "500.00")]
    amount: Option<String>,
    /// Percentages of the amount that raise an alert, ascending.
    thresholds: Vec<i32>,
    /// Whether new jobs are stopped once the month's costs reach the amount.
    hard_stop: bool,
    /// The alerts raised so far, of all months.
    alerts: Vec<BudgetAlertResponse>,
    /// Whether new jobs may be queued this month.
    jobs_allowed: bool,
}

/// A threshold that was reached. Each is raised once a month and kind.
#[derive(Debug, Serialize, ToSchema)]
struct BudgetAlertResponse {
    #[schema(example = "2026-03")]
    month: String,
    /// `actual` for costs so far, or `forecast` for the costs expected by the end of the month.
    #[schema(example = "actual")]
    kind: String,
    /// Percentage of the amount.
    #[schema(example = 80)]
    threshold: i32,
}

/// Get the budget
///
/// Returns the monthly budget, its alerts, and whether new jobs may be queued this month.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/budget", tag = "billing", params(OrganizationPath),
    responses(
        (status = 200, description = "The budget and its alerts.", body = BudgetResponse),
        ReadProblems,
    )
)]
pub(super) async fn get_budget(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
) -> Result<Json<BudgetResponse>, Problem> {
    let account = api.ledger.account(organization).await?;
    let month = api.ledger.current_month(&account)?;
    let budget = account.budget();
    let alert = |(month, kind, threshold): &(String, String, i32)| BudgetAlertResponse {
        month: month.clone(),
        kind: kind.clone(),
        threshold: *threshold,
    };
    Ok(Json(BudgetResponse {
        month: month.to_string(),
        amount: budget.and_then(|budget| budget.amount.clone()),
        thresholds: budget.map(|budget| budget.thresholds.clone()).unwrap_or_default(),
        hard_stop: budget.is_some_and(|budget| budget.hard_stop),
        alerts: account.alerts().map(alert).collect(),
        jobs_allowed: account.jobs_allowed(month),
    }))
}

/// Set the budget
///
/// Replaces the monthly budget. Costs of the current month count at once. Requires the role `admin`.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/budget", tag = "billing",
    params(OrganizationPath, IfMatch), request_body = BudgetRequest,
    responses(
        (status = 200, description = "The budget is set.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"7\"`."),
        )),
        (status = 404, description = "The organization does not exist, has no billing account, or the caller is not a member.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Concurrent changes of the account kept the budget from being set. Send the request again.",
            body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The account is not at the version of `If-Match`.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The amount or a threshold is invalid.",
            body = Problem, content_type = "application/problem+json"),
        AdminCommandProblems,
    )
)]
pub(super) async fn set_budget(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<BudgetRequest>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let BudgetRequest { amount, thresholds, hard_stop } = command.body;
    let set = AccountCommand::SetBudget { amount, thresholds, hard_stop, now: api.ledger.now() };
    let context = command.context.for_tenant(org);
    Ok(api.ledger.accounts.execute(org, &set, &context).await.map_err(command_problem)?.into())
}

/// Whether an organization may queue new jobs.
#[derive(Debug, Serialize)]
pub(super) struct StandingResponse {
    jobs_allowed: bool,
}

/// Returns whether an organization may queue new jobs. The job service asks before it queues a job. An organization without an
/// account may.
pub(super) async fn get_standing(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
) -> Result<Json<StandingResponse>, Problem> {
    caller.at_least(Role::Service)?;
    let account = match api.ledger.account(org).await {
        Err(LedgerError::Account(AccountError::NotFound)) => return Ok(Json(StandingResponse { jobs_allowed: true })),
        account => account?,
    };
    let month = api.ledger.current_month(&account)?;
    Ok(Json(StandingResponse { jobs_allowed: account.jobs_allowed(month) }))
}
