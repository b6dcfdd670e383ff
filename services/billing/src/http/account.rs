//! An organization's billing account, as the organization sees it.

use axum::{Json, extract::State};
use contracts::billing_account::UsageMetered;
use epoch::Timestamp;
use http_kit::Problem;
use rating::account::Pin;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{access::ViewedOrganization, parameters::OrganizationPath, problems::ReadProblems, state::Api},
    invoicing::error::LedgerError,
};

/// A billing account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountResponse {
    organization: Uuid,
    /// ISO 4217 code of all amounts.
    #[schema(example = "EUR")]
    currency: &'static str,
    /// The account's current calendar month.
    #[schema(example = "2026-03")]
    month: String,
    /// IANA time zone of the current month.
    #[schema(example = "Europe/Madrid")]
    time_zone: String,
    /// The assigned plan versions by the instant from which they apply, including scheduled ones.
    plans: Vec<AssignedPlanResponse>,
    /// Percentage taken off each subtotal.
    #[schema(example = "10")]
    discount_percent: String,
    /// Granted credit that no invoice has used yet, in the account's currency.
    #[schema(example = "25.00")]
    credit: String,
    /// Usage since the account was opened, recorded once a day. Null before the first record.
    metered: Option<LifetimeUsageResponse>,
}

/// A plan version that is assigned to an account.
#[derive(Debug, Serialize, ToSchema)]
struct AssignedPlanResponse {
    /// The instant from which the plan applies.
    #[schema(value_type = String, format = DateTime)]
    from: String,
    plan: Uuid,
    plan_version: u32,
    /// The notice to the customer. Null unless the change was scheduled.
    notice: Option<String>,
}

/// Usage of an account since it was opened.
#[derive(Debug, Serialize, ToSchema)]
struct LifetimeUsageResponse {
    /// The end of the last recorded day.
    #[schema(value_type = String, format = DateTime)]
    through: String,
    /// Bytes stored at the end of that day.
    stored_bytes: i64,
    /// Stored bytes times milliseconds, exact.
    #[schema(example = "172620005663088380")]
    byte_ms: String,
    /// Run time in milliseconds, exact.
    #[schema(example = "7207250")]
    run_ms: String,
}

impl From<&UsageMetered> for LifetimeUsageResponse {
    fn from(usage: &UsageMetered) -> Self {
        Self {
            through: usage.through_at.to_string(),
            stored_bytes: usage.stored_bytes,
            byte_ms: usage.byte_milliseconds.clone(),
            run_ms: usage.run_milliseconds.clone(),
        }
    }
}

/// Get the billing account
///
/// Returns the currency, the time zone, the assigned plans, the discount, the remaining credit and the recorded usage.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/account", tag = "billing", params(OrganizationPath),
    responses(
        (status = 200, description = "The billing account.", body = AccountResponse),
        ReadProblems,
    )
)]
pub(super) async fn get_account(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
) -> Result<Json<AccountResponse>, Problem> {
    let account = api.ledger.account(organization).await?;
    let month = api.ledger.current_month(&account)?;
    let plan = |(from, pin): (Timestamp, Pin)| AssignedPlanResponse {
        from: from.to_string(),
        plan: pin.plan,
        plan_version: pin.version,
        notice: account.notice(from).map(str::to_owned),
    };
    Ok(Json(AccountResponse {
        organization,
        currency: account.currency().map_err(LedgerError::from)?.code(),
        month: month.to_string(),
        time_zone: account.time_zone(month).to_owned(),
        plans: account.pins().map(plan).collect(),
        discount_percent: account.discount_percent().to_string(),
        credit: account.credit().map_err(LedgerError::from)?.to_string(),
        metered: account.metered().map(LifetimeUsageResponse::from),
    }))
}
