//! Commands of operators about billing accounts.

use axum::{Json, extract::State};
use http_kit::{ApiPath, CommandResponse, Problem};
use rating::{
    account::{AccountCommand, Pin},
    calendar::{month::Month, span::Span},
    money::{currency::Currency, decimal::Decimal},
    pricing::{components::ChargeDefinition, meter::Meter},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{access::Operated, instant::instant, state::Api},
    invoicing::{
        error::{LedgerError, command_problem},
        open::Opening,
        simulation::Sums,
    },
};

/// An account to be opened by hand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// As a code of ISO 4217.
    currency: String,
    /// The IANA time zone of its days and months.
    time_zone: String,
    /// What it is charged by, with `plan_version`; the installation's prices if not said, which are in one currency.
    #[serde(default)]
    plan: Option<Uuid>,
    #[serde(default)]
    plan_version: Option<u32>,
}

/// Another time zone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeZoneBody {
    /// The IANA time zone.
    time_zone: String,
    /// The first month that is one of this zone, as `2026-03`; the next month if not said.
    #[serde(default)]
    from: Option<String>,
}

/// A version of a plan, from an instant on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignBody {
    plan: Uuid,
    plan_version: u32,
    /// From when on, RFC 3339; now if not said.
    #[serde(default)]
    from: Option<String>,
    /// What the customer is told; required when `from` lies in the future, and refused else.
    #[serde(default)]
    notice: Option<String>,
}

/// A price of the account's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceBody {
    /// `storage` or `compute`.
    meter: String,
    /// The price; null for what the plan says.
    #[schema(value_type = Option<Object>)]
    charge: Option<ChargeDefinition>,
    /// From when on, RFC 3339; now if not said.
    #[serde(default)]
    from: Option<String>,
}

/// A discount.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscountBody {
    /// Hundredths of each subtotal, at most 100.
    #[schema(value_type = String)]
    percent: Decimal,
    reason: String,
}

/// A credit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreditBody {
    /// How much, in the account's currency.
    #[schema(value_type = String)]
    amount: Decimal,
    reason: String,
}

macro_rules! admin_command {
    ($(#[$doc:meta])* $name:ident, $method:ident, $path:literal, $body:ty, |$api:ident, $org:ident, $command:ident| $make:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            $method, path = $path, tag = "billing administration",
            params(("org" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = $body,
            responses((status = 200, body = CommandResponse), (status = 403, body = Problem), (status = 404, body = Problem),
                (status = 409, body = Problem), (status = 422, body = Problem))
        )]
        pub async fn $name(
            State($api): State<Api>,
            ApiPath($org): ApiPath<Uuid>,
            Operated($command): Operated<$body>,
        ) -> Result<CommandResponse, Problem> {
            let context = $command.context.clone().for_tenant($org);
            let made: Result<AccountCommand, Problem> = async { $make }.await;
            match made {
                Ok(made) => Ok($api.ledger.accounts.execute($org, &made, &context).await.map_err(command_problem)?.into()),
                // What was done before under this key is answered as it was then, whatever has changed since.
                Err(refused) => $api.ledger.accounts.find_repeated(&context).await.map_err(command_problem)?.map(CommandResponse::from).ok_or(refused),
            }
        }
    };
}

/// Opens an organization's account by hand, before it is opened by itself. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account", tag = "billing administration",
    params(("org" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = OpenBody,
    responses((status = 200, body = CommandResponse), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem))
)]
pub async fn open(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    Operated(command): Operated<OpenBody>,
) -> Result<CommandResponse, Problem> {
    let OpenBody { currency, time_zone, plan, plan_version } = command.body;
    let currency = currency.parse::<Currency>().map_err(|error| unprocessable("/currency", &error))?;
    let plan = match (plan, plan_version) {
        (None, None) => None,
        (Some(plan), Some(version)) => Some(Pin { plan, version }),
        (Some(_), None) => return Err(missing("/plan_version")),
        (None, Some(_)) => return Err(missing("/plan")),
    };
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.open(organization, Opening { currency, time_zone, plan }, &context).await?.into())
}

admin_command! {
    /// Gives an account another time zone from a month on. For operators.
    change_time_zone, post, "/api/v1/admin/organizations/{org}/account/time-zone", TimeZoneBody, |api, org, command| {
        let account = api.ledger.account(org).await?;
        let current = api.ledger.current_month(&account)?;
        let from = match &command.body.from {
            Some(month) => month.parse::<Month>().map_err(|error| unprocessable("/from", &error))?,
            None => current.next().map_err(LedgerError::from)?,
        };
        Ok(AccountCommand::ChangeTimeZone { time_zone: command.body.time_zone.clone(), from, current })
    }
}

admin_command! {
    /// Charges an account by a version of a plan: from an instant on, or with a notice, later. For operators.
    assign_plan, post, "/api/v1/admin/organizations/{org}/account/plan", AssignBody, |api, org, command| {
        let AssignBody { plan, plan_version, from, notice } = &command.body;
        let catalogue = api.ledger.plans.load(*plan).await?.state;
        catalogue.require_open().map_err(LedgerError::from)?;
        let version = catalogue.version(*plan, *plan_version).map_err(LedgerError::from)?;
        let (pin, now) = (Pin { plan: *plan, version: *plan_version }, api.ledger.now());
        let from = instant("/from", from.as_deref())?.unwrap_or(now);
        Ok(AccountCommand::AssignPlan { pin, currency: version.currency, from, now, notice: notice.clone() })
    }
}

admin_command! {
    /// Gives an account a price of its own for a meter, whatever its plan says. For operators.
    override_price, post, "/api/v1/admin/organizations/{org}/account/prices", PriceBody, |api, org, command| {
        let meter = match command.body.meter.as_str() {
            "storage" => Meter::Storage,
            "compute" => Meter::Compute,
            other => return Err(Problem::unprocessable(format!("there is no meter {other:?}")).at("/meter", "is unknown")),
        };
        let from = instant("/from", command.body.from.as_deref())?.unwrap_or(api.ledger.now());
        Ok(AccountCommand::OverridePrice { meter, charge: command.body.charge.clone(), from })
    }
}

admin_command! {
    /// Takes a part of each subtotal off. For operators.
    grant_discount, post, "/api/v1/admin/organizations/{org}/account/discount", DiscountBody, |api, org, command| {
        Ok(AccountCommand::GrantDiscount { percent: command.body.percent.clone(), reason: command.body.reason.clone() })
    }
}

admin_command! {
    /// Gives an account credit to use up. For operators.
    grant_credit, post, "/api/v1/admin/organizations/{org}/account/credits", CreditBody, |api, org, command| {
        Ok(AccountCommand::GrantCredit { amount: command.body.amount.clone(), reason: command.body.reason.clone() })
    }
}

/// Says what a change of plans would have meant for the month before. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/account/plan/preview", tag = "billing administration",
    params(("org" = Uuid, Path), ("Idempotency-Key" = String, Header)), request_body = AssignBody,
    responses((status = 200, body = Object), (status = 404, body = Problem))
)]
pub async fn preview(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    Operated(command): Operated<AssignBody>,
) -> Result<Json<Value>, Problem> {
    let AssignBody { plan, plan_version, .. } = command.body;
    let catalogue = api.ledger.plans.load(plan).await?.state;
    let version = catalogue.version(plan, plan_version).map_err(LedgerError::from)?;
    let account = api.ledger.account(organization).await?;
    let month = api.ledger.current_month(&account)?.previous().map_err(LedgerError::from)?;
    let (period, _): (Span, _) = api.ledger.period(&account, month)?;
    let now = api.ledger.now();
    let none = Sums::none(version.currency);
    let effects = api.ledger.simulate(&[organization], &version, period, now, none).await?.effects;
    let Some(effect) = effects.first() else {
        let detail = "the plan is in another currency than the account, or than what it was charged by";
        return Err(Problem::unprocessable(detail).of_kind("/problems/other-currency", "another currency"));
    };
    Ok(Json(json!({
        "month": month.to_string(),
        "actual": effect.actual.to_string(),
        "simulated": effect.simulated.to_string(),
        "difference": effect.difference().to_string(),
    })))
}

fn missing(pointer: &'static str) -> Problem {
    Problem::unprocessable("say plan and plan_version, or neither").at(pointer, "is missing")
}

fn unprocessable(pointer: &'static str, error: &dyn std::error::Error) -> Problem {
    let detail = error.to_string();
    Problem::unprocessable(detail.clone()).at(pointer, detail)
}
