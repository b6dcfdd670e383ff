//! The invoice that a path selects, by month or by id.

use std::sync::Arc;

use http_kit::Problem;
use rating::{
    calendar::month::{InvalidMonth, Month},
    invoice::InvoiceState,
};
use uuid::Uuid;

use crate::{http::access::InvoiceSelector, invoicing::ledger::Ledger};

/// An invoice of an organization.
pub(super) struct SelectedInvoice {
    pub(super) id: Uuid,
    pub(super) month: Month,
    /// The state, which is empty for a month without an invoice.
    pub(super) state: Arc<InvoiceState>,
}

/// Loads an organization's invoice. A month selects its current invoice, or the id that its next one will have.
///
/// # Errors
/// 404 for an id that is not an invoice of the organization.
pub(super) async fn select_invoice(
    ledger: &Ledger,
    organization: Uuid,
    selector: InvoiceSelector,
) -> Result<SelectedInvoice, Problem> {
    match selector {
        InvoiceSelector::Month(month) => {
            let (id, state) = ledger.invoice_of(organization, month).await?;
            Ok(SelectedInvoice { id, month, state })
        }
        InvoiceSelector::Id(id) => {
            let state = ledger.invoices.load(id).await?.state;
            let drafted = state.drafted().filter(|drafted| drafted.organization_id == organization);
            let drafted = drafted.ok_or_else(|| Problem::not_found("the invoice does not exist"))?;
            let month = drafted.month.parse().map_err(|error: InvalidMonth| Problem::internal(error.to_string()))?;
            Ok(SelectedInvoice { id, month, state })
        }
    }
}
