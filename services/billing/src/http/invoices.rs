//! Invoices: an organization sees its own, operators freeze and undo them.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use http_kit::{ApiQuery, Page, PageQuery, Problem};
use rating::{
    calendar::month::{InvalidMonth, Month},
    invoice::InvoiceState,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    export::documents::{CreditNote, Document},
    http::{
        access::{Invoiced, Viewed},
        state::Api,
    },
    invoicing::ledger::Ledger,
};

/// An invoice, as lists show it.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct InvoiceSummary {
    id: Uuid,
    /// As `2026-03`.
    month: String,
    /// `draft`, `finalized` or `void`.
    status: String,
    number: Option<i64>,
    /// The number of the credit note that undoes it.
    credit_note: Option<i64>,
    currency: Option<String>,
    total: Option<String>,
    /// How many adjustments were booked on it.
    adjustments: i32,
}

/// How an invoice is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FormatQuery {
    /// `json` (if not said), `csv` or `html`.
    format: Option<String>,
}

/// Lists an organization's invoices, newest month first.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices", tag = "billing", params(("org" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<InvoiceSummary>), (status = 404, body = Problem))
)]
pub async fn list(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<InvoiceSummary>>, Problem> {
    let limit = page.limit()?;
    let (month, id) = page.after::<(String, Uuid)>()?.unwrap_or(("9999-99".to_owned(), Uuid::max()));
    let list = "select id, month, status, number, credit_note, currency, total, adjustments from invoices \
         where organization_id = $1 and (month, id) < ($2, $3) order by month desc, id desc limit $4";
    let fetched = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = sqlx::query_as::<_, InvoiceSummary>(list).bind(organization).bind(month).bind(id).bind(fetched);
    let rows = rows.fetch_all(&api.pool).await?;
    Ok(Json(Page::of(rows, limit, |row| (row.month.clone(), row.id))?))
}

/// Shows an invoice: of a month, frozen or as it would be now; or by its id, also a void one.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}", tag = "billing",
    params(("org" = Uuid, Path), ("month" = String, Path, description = "A month, or the id of an invoice"), FormatQuery),
    responses((status = 200, description = "JSON, CSV, or HTML that prints well", body = Object),
        (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub async fn read(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    invoiced: Invoiced,
    ApiQuery(query): ApiQuery<FormatQuery>,
) -> Result<Response, Problem> {
    let document = document(&api.ledger, organization, found(&api.ledger, organization, invoiced).await?).await?;
    query.told(|| document.json(), || document.csv(), || document.html())
}

/// Shows the credit note that undoes a void invoice.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/credit-note", tag = "billing",
    params(("org" = Uuid, Path), ("month" = String, Path, description = "The id of an invoice"), FormatQuery),
    responses((status = 200, description = "JSON, CSV, or HTML that prints well", body = Object),
        (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub async fn credit_note(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    invoiced: Invoiced,
    ApiQuery(query): ApiQuery<FormatQuery>,
) -> Result<Response, Problem> {
    let Found { id, state, .. } = found(&api.ledger, organization, invoiced).await?;
    let note = CreditNote::of(id, &state).ok_or_else(|| Problem::not_found("no credit note undoes this invoice"))?;
    query.told(|| note.json(), || note.csv(), || note.html())
}

impl FormatQuery {
    /// The form that is wanted.
    fn told(
        &self,
        json: impl FnOnce() -> Value,
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
            Some(other) => Err(Problem::unprocessable(format!("there is no format {other:?}"))),
        }
    }
}

/// An invoice that was asked for.
pub(super) struct Found {
    pub(super) id: Uuid,
    pub(super) month: Month,
    /// Of a month without an invoice, that of one that isn't begun.
    pub(super) state: Arc<InvoiceState>,
}

/// An organization's invoice: of a month the one that counts or would be made next, or one by its id.
pub(super) async fn found(ledger: &Ledger, organization: Uuid, invoiced: Invoiced) -> Result<Found, Problem> {
    match invoiced {
        Invoiced::Of(month) => {
            let (id, state) = ledger.invoice_of(organization, month).await?;
            Ok(Found { id, month, state })
        }
        Invoiced::Id(id) => {
            let state = ledger.invoices.load(id).await?.state;
            let drafted = state.drafted().filter(|drafted| drafted.organization_id == organization);
            let drafted = drafted.ok_or_else(|| Problem::not_found("there is no such invoice"))?;
            let month = drafted.month.parse().map_err(|error: InvalidMonth| Problem::internal(error.to_string()))?;
            Ok(Found { id, month, state })
        }
    }
}

/// An invoice, frozen or as it would be now.
async fn document(ledger: &Ledger, organization: Uuid, found: Found) -> Result<Document, Problem> {
    let Found { id, month, state: invoice } = found;
    if let Some(document) = frozen(id, &invoice) {
        return Ok(document);
    }
    let (statement, content) = ledger.draft(organization, month).await?;
    Ok(Document {
        id,
        status: "draft",
        month: month.to_string(),
        start: statement.used.period.start(),
        end: statement.used.period.end(),
        time_zone: statement.used.time_zone,
        content,
        adjustments: Vec::new(),
        credit_note: None,
        provisional: statement.used.provisional,
    })
}

fn frozen(id: Uuid, invoice: &InvoiceState) -> Option<Document> {
    let (drafted, content) = (invoice.drafted()?, invoice.finalized()?);
    Some(Document {
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
