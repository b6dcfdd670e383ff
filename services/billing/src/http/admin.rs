//! Routes for operators.

pub(super) mod accounts;
mod charge_request;
pub(super) mod invoices;
pub(super) mod plans;
pub(super) mod reconciliation;
pub(super) mod simulations;
