//! An organization's billing account, as the organization sees it.

use axum::{Json, extract::State};
use epoch::Timestamp;
use http_kit::Problem;
use rating::account::Pin;
use serde_json::{Value, json};

use crate::{
    http::{access::Viewed, state::Api},
    invoicing::error::LedgerError,
};

/// Shows an organization's account.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/account", tag = "billing", params(("org" = Uuid, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem))
)]
pub async fn read(State(api): State<Api>, Viewed(organization): Viewed) -> Result<Json<Value>, Problem> {
    let account = api.ledger.account(organization).await?;
    let month = api.ledger.current_month(&account)?;
    let pin = |(from, pin): (Timestamp, Pin)| json!({ "from": from.to_string(), "plan": pin.plan, "plan_version": pin.version, "notice": account.notice(from) });
    let metered = account.metered().map(|metered| {
        json!({
            "through": metered.through_at.to_string(), "stored_bytes": metered.stored_bytes,
            "byte_ms": metered.byte_milliseconds, "run_ms": metered.run_milliseconds,
        })
    });
    Ok(Json(json!({
        "organization": organization,
        "currency": account.currency().map_err(LedgerError::from)?.code(),
        "month": month.to_string(),
        "time_zone": account.time_zone(month),
        "plans": account.pins().map(pin).collect::<Vec<_>>(),
        "discount_percent": account.discount_percent().to_string(),
        "credit": account.credit().map_err(LedgerError::from)?.to_string(),
        "metered": metered,
    })))
}
