//! Operators' commands on invoices.

use axum::extract::State;
use http_kit::{CommandResponse, Problem};

use crate::http::{
    access::{AccountMonth, OperatorCommand},
    admin::plans::ReasonRequest,
    parameters::{IdempotencyKey, MonthPath},
    problems::OperatorCommandProblems,
    state::Api,
};

/// Finalize an invoice
///
/// Freezes the invoice of a calendar month that is over, and gives it the next invoice number. It settles the corrections of earlier
/// invoices. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/invoices/{month}/finalize", tag = "billing administration",
    params(MonthPath, IdempotencyKey),
    responses(
        (status = 200, description = "The invoice is finalized.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the invoice: `\"2\"`."),
        )),
        (status = 404, description = "The organization has no billing account.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The month is not over, or its invoice is finalized already.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The month is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn finalize_invoice(
    State(api): State<Api>,
    AccountMonth { organization, month }: AccountMonth,
    OperatorCommand(command): OperatorCommand<()>,
) -> Result<CommandResponse, Problem> {
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.finalize(organization, month, &context).await?.into())
}

/// Void an invoice
///
/// Voids the invoice of a calendar month. A finalized invoice is reversed by a credit note with the next invoice number, and the
/// month can be invoiced again. Requires the role `operator`.
#[utoipa::path(
    post, path = "/api/v1/admin/organizations/{org}/invoices/{month}/void", tag = "billing administration",
    params(MonthPath, IdempotencyKey), request_body = ReasonRequest,
    responses(
        (status = 200, description = "The invoice is void.", body = CommandResponse, headers(
            ("ETag" = String, description = "Quoted version of the invoice: `\"3\"`."),
        )),
        (status = 404, description = "The month has no invoice.",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Concurrent changes kept the invoice from being voided. Send the request again.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The month or the reason is invalid, or the `Idempotency-Key` belongs to another request.",
            body = Problem, content_type = "application/problem+json"),
        OperatorCommandProblems,
    )
)]
pub(in crate::http) async fn void_invoice(
    State(api): State<Api>,
    AccountMonth { organization, month }: AccountMonth,
    OperatorCommand(command): OperatorCommand<ReasonRequest>,
) -> Result<CommandResponse, Problem> {
    let context = command.context.for_tenant(organization);
    Ok(api.ledger.void(organization, month, &command.body.reason, &context).await?.into())
}
