//! The state of the routes.

use axum::extract::FromRef;
use http_kit::Secrets;
use sqlx::PgPool;

use crate::invoicing::ledger::Ledger;

/// What the routes need.
#[derive(Clone, FromRef)]
pub struct Api {
    /// The read models.
    pub pool: PgPool,
    /// Who may be believed.
    pub secrets: Secrets,
    /// Plans, accounts and invoices.
    pub ledger: Ledger,
}
