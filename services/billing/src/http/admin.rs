//! Routes for administrators.

pub mod accounts;
pub mod invoices;
pub mod plans;
pub mod reconciliation;
pub mod simulations;
