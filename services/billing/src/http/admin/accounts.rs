//! Operators' commands on billing accounts.

use axum::{Json, extract::State};
use epoch::{CommandContext, Timestamp};
use http_kit::{ApiPath, CommandResponse, Problem};
use rating::{
    account::{AccountCommand, Pin},
    calendar::{month::Month, span::Span},
    money::{currency::Currency, decimal::Decimal},
    pricing::{components::ChargeDefinition, meter::Meter},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        access::OperatorCommand,
        admin::charge_request::ChargeRequest,
        instant::body_instant,
        parameters::{IdempotencyKey, OrganizationPath},
        problems::OperatorCommandProblems,
        state::Api,
    },
    invoicing::{
        error::{LedgerError, command_problem},
        open::Opening,
        simulation::SimulationTotals,
    },
};

/// The terms of a new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OpenAccountRequest {
    /// ISO 4217 code of all charges.
    #[schema(example = "EUR")]
    currency: String,
    /// IANA time zone of the account's days and months.
    #[schema(example = "Europe/Madrid")]
    time_zone: String,
    /// The plan, together with `plan_version` (default: the standard plan with the installation's prices).
    #[serde(default)]
    plan: Option<Uuid>,
    /// The version of `plan`.
    #[serde(default)]
    plan_version: Option<u32>,
}

/// A new time zone of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TimeZoneRequest {
    /// IANA time zone of the account's days and months.
    #[schema(example = "Europe/Madrid")]
    time_zone: String,
    /// The first calendar month in the time zone (default: the next month).
    #[serde(default)]
    #[schema(example = "2026-04")]
    from: Option<String>,
}

/// An assignment of a plan version to an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PlanAssignmentRequest {
    plan: Uuid,
    plan_version: u32,
    /// The instant from which the plan applies (RFC 3339, default: now).
    #[serde(default)]
    #[schema(example = "2026-04-01T00:00:00Z")]
    from: Option<String>,
    /// A notice to the customer. Required for a `from` in the future, and refused otherwise.
    #[serde(default)]
    #[schema(example = "New prices from April.")]
    notice: Option<String>,
}

/// A price override of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PriceOverrideRequest {
    /// `storage` or `compute`.
    #[schema(pattern = "^(storage|compute)$", example = "storage")]
    meter: String,
    /// The price of the meter. Null returns to the price of the plan.
    charge: Option<ChargeRequest>,
    /// The instant from which the price applies (RFC 3339, default: now).
    #[serde(default)]
    #[schema(example = "2026-04-01T00:00:00Z")]
    from: Option<String>,
}

/// A discount of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct DiscountRequest {
    /// The percentage taken off each subtotal, at most 100.
    #[schema(value_type = String, example = "10")]
    percent: Decimal,
    /// The reason, 1 to 200 characters.
    #[schema(example = "annual contract")]
    reason: String,
}

/// A credit grant for an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CreditRequest {
    /// The amount in the account's currency.
    #[schema(value_type = String, example = "25.00")]
    amount: Decimal,
    /// The reason, 1 to 200 characters.
    #[schema(example = "outage on 3 March")]
    reason: String,
}

/// The effect that a plan would have had on the previous month.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PlanPreviewResponse {
    /// The previous calendar month.
    #[schema(example = "2026-02")]
    month: String,
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

/// Open a billing account
///
/// Opens an organization's account before the service opens it by default. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = OpenAccountRequest,
    responses(
        (status = 200, description = "The account is open.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"1\"`."),
        )),
        (status = 404, description = "The plan or its version does not exist.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The account is open already, or the plan is retired.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, the plan is in another currency, or the `Idempotency-Key` belongs to \
            another request.", body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn open_account(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<OpenAccountRequest>,
) -> Result<CommandResponse, Problem> {
    let OpenAccountRequest { currency, time_zone, plan, plan_version } = command.body;
    let currency = currency.parse::<Currency>().map_err(|error| unprocessable("/currency", &error))?;
    let plan = match (plan, plan_version) {
        (None, None) => None,
        (Some(plan), Some(version)) => Some(Pin { plan, version }),
        (Some(_), None) => return Err(missing("/plan_version")),
        (None, Some(_)) => return Err(missing("/plan")),
    };
    let context = command.context.for_tenant(org);
    Ok(api.ledger.open(org, Opening { currency, time_zone, plan }, &context).await?.into())
}

/// Change the time zone
///
/// Gives an account another time zone from a calendar month on. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/time-zone", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = TimeZoneRequest,
    responses(
        (status = 200, description = "The time zone is set.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"2\"`."),
        )),
        (status = 404, description = "The organization has no billing account.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Concurrent changes kept the command from being executed. Send the request again.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The time zone is unknown, the month has begun already, or the `Idempotency-Key` belongs to \
            another request.", body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn change_time_zone(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<TimeZoneRequest>,
) -> Result<CommandResponse, Problem> {
    let change = time_zone_command(&api, org, command.body).await;
    execute(&api, org, command.context, change).await
}

async fn time_zone_command(api: &Api, org: Uuid, body: TimeZoneRequest) -> Result<AccountCommand, Problem> {
    let account = api.ledger.account(org).await?;
    let current = api.ledger.current_month(&account)?;
    let from = match &body.from {
        Some(month) => month.parse::<Month>().map_err(|error| unprocessable("/from", &error))?,
        None => current.next().map_err(LedgerError::from)?,
    };
    Ok(AccountCommand::ChangeTimeZone { time_zone: body.time_zone, from, current })
}

/// Assign a plan
///
/// Charges an account by a plan version from an instant on. A change in the future needs a notice to the customer. Requires the
/// role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/plan", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = PlanAssignmentRequest,
    responses(
        (status = 200, description = "The plan is assigned.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"2\"`."),
        )),
        (status = 404, description = "The account, the plan or its version does not exist.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The plan is retired, or `from` lies in a period that is invoiced already.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, the plan is in another currency, or the `Idempotency-Key` belongs to \
            another request.", body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn assign_plan(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<PlanAssignmentRequest>,
) -> Result<CommandResponse, Problem> {
    let assign = plan_command(&api, command.body).await;
    execute(&api, org, command.context, assign).await
}

async fn plan_command(api: &Api, body: PlanAssignmentRequest) -> Result<AccountCommand, Problem> {
    let PlanAssignmentRequest { plan, plan_version, from, notice } = body;
    let catalogue = api.ledger.plans.load(plan).await?.state;
    catalogue.require_open().map_err(LedgerError::from)?;
    let version = catalogue.version(plan, plan_version).map_err(LedgerError::from)?;
    let (pin, now) = (Pin { plan, version: plan_version }, api.ledger.now());
    let from = from_or(now, from.as_deref())?;
    Ok(AccountCommand::AssignPlan { pin, currency: version.currency, from, now, notice })
}

/// Override a price
///
/// Gives an account its own price for a meter from an instant on, in place of the plan's. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/prices", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = PriceOverrideRequest,
    responses(
        (status = 200, description = "The price is overridden.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"2\"`."),
        )),
        (status = 404, description = "The organization has no billing account.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`from` lies in a period that is invoiced already.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The meter is unknown, the price is invalid, or the `Idempotency-Key` belongs to another \
            request.", body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn override_price(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<PriceOverrideRequest>,
) -> Result<CommandResponse, Problem> {
    let override_price = price_command(command.body, api.ledger.now());
    execute(&api, org, command.context, override_price).await
}

fn price_command(body: PriceOverrideRequest, now: Timestamp) -> Result<AccountCommand, Problem> {
    let meter = match body.meter.as_str() {
        "storage" => Meter::Storage,
        "compute" => Meter::Compute,
        other => return Err(Problem::unprocessable(format!("unknown meter {other:?}")).at("/meter", "is unknown")),
    };
    let from = from_or(now, body.from.as_deref())?;
    Ok(AccountCommand::OverridePrice { meter, charge: body.charge.map(ChargeDefinition::from), from })
}

/// Grant a discount
///
/// Takes a percentage off each subtotal. Replaces the present discount. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/discount", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = DiscountRequest,
    responses(
        (status = 200, description = "The discount is granted.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"2\"`."),
        )),
        (status = 404, description = "The organization has no billing account.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Concurrent changes kept the command from being executed. Send the request again.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn grant_discount(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<DiscountRequest>,
) -> Result<CommandResponse, Problem> {
    let DiscountRequest { percent, reason } = command.body;
    execute(&api, org, command.context, Ok(AccountCommand::GrantDiscount { percent, reason })).await
}

/// Grant credit
///
/// Adds credit to an account. Invoices use it before an amount becomes due. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/credits", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = CreditRequest,
    responses(
        (status = 200, description = "The credit is granted.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the account: `\"2\"`."),
        )),
        (status = 404, description = "The organization has no billing account.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Concurrent changes kept the command from being executed. Send the request again.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn grant_credit(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<CreditRequest>,
) -> Result<CommandResponse, Problem> {
    let CreditRequest { amount, reason } = command.body;
    execute(&api, org, command.context, Ok(AccountCommand::GrantCredit { amount, reason })).await
}

/// Preview a plan assignment
///
/// Reprices the account's previous calendar month under a plan version. Changes nothing. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/plan/preview", tag = "billing administration",
    params(OrganizationPath, IdempotencyKey), request_body = PlanAssignmentRequest,
    responses(
        (status = 200, description = "The effect of the plan.", body = PlanPreviewResponse),
        (status = 404, description = "The account, the plan or its version does not exist.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, or the plan is in another currency than the account.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn preview_plan_assignment(
    State(api): State<Api>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    OperatorCommand(command): OperatorCommand<PlanAssignmentRequest>,
) -> Result<Json<PlanPreviewResponse>, Problem> {
    let PlanAssignmentRequest { plan, plan_version, .. } = command.body;
    let catalogue = api.ledger.plans.load(plan).await?.state;
    let version = catalogue.version(plan, plan_version).map_err(LedgerError::from)?;
    let account = api.ledger.account(org).await?;
    let month = api.ledger.current_month(&account)?.previous().map_err(LedgerError::from)?;
    let (period, _): (Span, _) = api.ledger.period(&account, month)?;
    let totals = SimulationTotals::none(version.currency);
    let simulation = api.ledger.simulate(&[org], &version, period, api.ledger.now(), totals).await?;
    let Some(effect) = simulation.effects.first() else {
        let detail = "the plan is in another currency than the account, or than its plan of that month";
        return Err(Problem::unprocessable(detail).of_kind("/problems/other-currency", "another currency"));
    };
    Ok(Json(PlanPreviewResponse {
        month: month.to_string(),
        actual: effect.actual.to_string(),
        simulated: effect.simulated.to_string(),
        difference: effect.difference().to_string(),
    }))
}

/// Executes a command. A request that is rejected before it becomes a command may be the repetition of an earlier one, which was
/// accepted: then the stored result is returned, as for any other repetition.
async fn execute(
    api: &Api,
    org: Uuid,
    context: CommandContext,
    command: Result<AccountCommand, Problem>,
) -> Result<CommandResponse, Problem> {
    let context = context.for_tenant(org);
    match command {
        Ok(command) => Ok(api.ledger.accounts.execute(org, &command, &context).await.map_err(command_problem)?.into()),
        Err(rejection) => {
            let first = api.ledger.accounts.repeated(&context).await.map_err(command_problem)?;
            first.map(CommandResponse::from).ok_or(rejection)
        }
    }
}

fn from_or(now: Timestamp, from: Option<&str>) -> Result<Timestamp, Problem> {
    from.map_or(Ok(now), |from| body_instant("/from", from))
}

fn missing(pointer: &'static str) -> Problem {
    Problem::unprocessable("plan and plan_version must be given together").at(pointer, "is missing")
}

fn unprocessable(pointer: &'static str, error: &dyn std::error::Error) -> Problem {
    let detail = error.to_string();
    Problem::unprocessable(detail.clone()).at(pointer, detail)
}
