//! Invoices and credit notes, as the organization sees them.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use http_kit::{ApiQuery, Page, PageQuery, Problem};
use rating::invoice::InvoiceState;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    export::documents::{CreditNote, InvoiceDocument},
    http::{
        access::{InvoiceSelector, ViewedOrganization},
        invoice_response::{CreditNoteResponse, InvoiceResponse},
        parameters::{InvoicePath, OrganizationPath},
        problems::ReadProblems,
        selected_invoice::{SelectedInvoice, select_invoice},
        state::Api,
    },
    invoicing::ledger::Ledger,
};

/// An invoice in a list.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(super) struct InvoiceSummary {
    id: Uuid,
    #[schema(example = "2026-03")]
    month: String,
    /// `draft`, `finalized` or `void`.
    #[schema(example = "finalized")]
    status: String,
    /// The invoice number. Null for a draft.
    number: Option<i64>,
    /// The number of the credit note that reverses a void invoice.
    credit_note: Option<i64>,
    /// ISO 4217 code of the total. Null for a draft.
    #[schema(example = "EUR")]
    currency: Option<String>,
    /// The total. Null for a draft.
    #[schema(example = "7.62")]
    total: Option<String>,
    /// The number of adjustments booked after the invoice was finalized.
    adjustments: i32,
}

/// The format of an invoice or a credit note.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentFormatQuery {
    /// Format of the document: `json`, `csv`, or `html` for a printable page (default: `json`).
    #[param(example = "html", default = "json", pattern = "^(json|csv|html)$")]
    format: Option<String>,
}

impl DocumentFormatQuery {
    /// Renders a document in the requested format.
    fn render<T: Serialize>(
        &self,
        json: impl FnOnce() -> T,
        csv: impl FnOnce() -> String,
        html: impl FnOnce() -> String,
    ) -> Result<Response, Problem> {
        match self.format.as_deref() {
            None | Some("json") => Ok(Json(json()).into_response()),
            Some("csv") => Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv()).into_response()),
            Some("html") => {
                let headers = [
                    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
                ];
                Ok((headers, html()).into_response())
            }
            Some(other) => {
                Err(Problem::unprocessable(format!("unknown format {other:?}; the formats are json, csv and html")))
            }
        }
    }
}

/// List invoices
///
/// Returns the organization's invoices, newest month first, including void ones.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices", tag = "billing", params(OrganizationPath, PageQuery),
    responses(
        (status = 200, description = "One page of invoices.", body = Page<InvoiceSummary>),
        ReadProblems,
    )
)]
pub(super) async fn list_invoices(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<InvoiceSummary>>, Problem> {
    let first = || ("9999-99".to_owned(), Uuid::max());
    let key = |invoice: &InvoiceSummary| (invoice.month.clone(), invoice.id);
    let page = Page::fetch(&page, key, |after: Option<(String, Uuid)>, limit| {
        let (month, id) = after.unwrap_or_else(first);
        let list = sqlx::query_as::<_, InvoiceSummary>(include_str!("list_invoices.sql"));
        list.bind(organization).bind(month).bind(id).bind(limit).fetch_all(&api.pool)
    });
    Ok(Json(page.await?))
}

/// Get an invoice
///
/// Returns the invoice of a month, or an invoice by its id. A draft shows the amounts that it would have if it were finalized
/// now.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}", tag = "billing", params(InvoicePath, DocumentFormatQuery),
    responses(
        (status = 200, description = "The invoice as JSON, as CSV, or as a printable HTML page.",
            content((InvoiceResponse = "application/json"), (String = "text/csv"), (String = "text/html"))),
        (status = 422, description = "The month or the format is invalid.",
            body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn get_invoice(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    selector: InvoiceSelector,
    ApiQuery(query): ApiQuery<DocumentFormatQuery>,
) -> Result<Response, Problem> {
    let invoice = select_invoice(&api.ledger, organization, selector).await?;
    let document = document(&api.ledger, organization, invoice).await?;
    query.render(|| InvoiceResponse::from(&document), || document.csv(), || document.html())
}

/// Get a credit note
///
/// Returns the credit note that reverses a void invoice.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/credit-note", tag = "billing",
    params(InvoicePath, DocumentFormatQuery),
    responses(
        (status = 200, description = "The credit note as JSON, as CSV, or as a printable HTML page.",
            content((CreditNoteResponse = "application/json"), (String = "text/csv"), (String = "text/html"))),
        (status = 422, description = "The month or the format is invalid.",
            body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn get_credit_note(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    selector: InvoiceSelector,
    ApiQuery(query): ApiQuery<DocumentFormatQuery>,
) -> Result<Response, Problem> {
    let SelectedInvoice { id, state, .. } = select_invoice(&api.ledger, organization, selector).await?;
    let note = CreditNote::of(id, &state).ok_or_else(|| Problem::not_found("the invoice has no credit note"))?;
    query.render(|| CreditNoteResponse::from(&note), || note.csv(), || note.html())
}

/// Returns a finalized invoice as it is, or a draft with the amounts as of now.
async fn document(ledger: &Ledger, organization: Uuid, invoice: SelectedInvoice) -> Result<InvoiceDocument, Problem> {
    let SelectedInvoice { id, month, state } = invoice;
    if let Some(document) = finalized_document(id, &state) {
        return Ok(document);
    }
    let (statement, content) = ledger.draft(organization, month).await?;
    Ok(InvoiceDocument {
        id,
        status: "draft",
        month: month.to_string(),
        start: statement.usage.period.start(),
        end: statement.usage.period.end(),
        time_zone: statement.usage.time_zone,
        content,
        adjustments: Vec::new(),
        credit_note: None,
        provisional: statement.usage.provisional,
    })
}

fn finalized_document(id: Uuid, invoice: &InvoiceState) -> Option<InvoiceDocument> {
    let (drafted, content) = (invoice.drafted()?, invoice.finalized()?);
    Some(InvoiceDocument {
        id,
        status: invoice.status(),
        month: drafted.month.clone(),
        start: drafted.start_at,
        end: drafted.end_at,
        time_zone: drafted.time_zone.clone(),
        content: content.clone(),
        adjustments: invoice.adjustments().to_vec(),
        credit_note: invoice.voided().and_then(|voided| voided.credit_note),
        provisional: false,
    })
}
