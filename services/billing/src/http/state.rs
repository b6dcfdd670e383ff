//! The state of the routes.

use axum::extract::FromRef;
use http_kit::Secrets;
use sqlx::PgPool;

use crate::invoicing::ledger::Ledger;

/// The state that all routes share.
#[derive(Clone, FromRef)]
pub struct Api {
    /// The pool for the read models.
    pub pool: PgPool,
    /// The tokens that authenticate callers.
    pub secrets: Secrets,
    /// The repositories of plans, accounts and invoices.
    pub ledger: Ledger,
}
