//! Commands of operators about invoices.

use axum::extract::State;
use http_kit::{ApiPath, CommandResponse, Problem};
use uuid::Uuid;

use crate::http::{
    access::{Monthly, Operated},
    admin::plans::ReasonBody,
    state::Api,
};

/// Freezes a month's invoice under the next number. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/invoices/{month}/finalize", tag = "billing administration",
    params(("org" = Uuid, Path), ("month" = String, Path), ("Idempotency-Key" = String, Header)),
    responses((status = 200, body = CommandResponse), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem))
)]
pub async fn finalize(
    State(api): State<Api>,
    ApiPath((organization, _)): ApiPath<(Uuid, String)>,
    Monthly(month): Monthly,
    Operated(command): Operated<()>,
) -> Result<CommandResponse, Problem> {
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.finalize(organization, month, &context).await?.into())
}

/// Undoes a month's invoice, a finalized one by a credit note under the next number. For operators.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/invoices/{month}/void", tag = "billing administration",
    params(("org" = Uuid, Path), ("month" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = ReasonBody,
    responses((status = 200, body = CommandResponse), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem))
)]
pub async fn void(
    State(api): State<Api>,
    ApiPath((organization, _)): ApiPath<(Uuid, String)>,
    Monthly(month): Monthly,
    Operated(command): Operated<ReasonBody>,
) -> Result<CommandResponse, Problem> {
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.void(organization, month, &command.body.reason, &context).await?.into())
}
