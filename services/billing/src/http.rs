//! The service's routes.

mod access;
mod account;
mod admin;
mod budget;
mod costs;
mod explanation;
mod instant;
mod invoice_response;
mod invoices;
mod parameters;
mod problems;
mod report_period;
mod routes;
mod selected_invoice;
pub mod state;
mod usage;
mod usage_rows;

pub use routes::router;
