//! The service's routes.

pub mod access;
pub mod accounts;
pub mod budget;
pub mod costs;
mod csv;
pub mod explain;
mod focus;
pub mod invoices;
pub mod plans;
pub mod question;
pub mod reconciliation;
pub mod rows;
pub mod simulate;
pub mod usage;

use axum::{Router, extract::FromRef, routing::get};
use epoch::{Timestamp, timestamp::ParseTimestampError};
use service_kit::{Problem, Secrets, server};
use sqlx::PgPool;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use access::{Invoiced, Monthly, Operated, Viewed};

use crate::ledger::Ledger;

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

/// The routes, and what they look like from outside.
pub fn router(api: Api) -> (Router, OpenApi) {
    let routes = OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(rows::rows))
        .routes(routes!(costs::costs))
        .routes(routes!(reconciliation::reconciliation))
        .routes(routes!(accounts::read))
        .routes(routes!(budget::read, budget::set))
        .routes(routes!(invoices::list))
        .routes(routes!(invoices::read))
        .routes(routes!(invoices::credit_note))
        .routes(routes!(explain::explain))
        .routes(routes!(plans::publish, plans::list))
        .routes(routes!(plans::read))
        .routes(routes!(plans::publish_version))
        .routes(routes!(plans::retire))
        .routes(routes!(accounts::open))
        .routes(routes!(accounts::change_time_zone))
        .routes(routes!(accounts::assign_plan))
        .routes(routes!(accounts::preview))
        .routes(routes!(accounts::override_price))
        .routes(routes!(accounts::grant_discount))
        .routes(routes!(accounts::grant_credit))
        .routes(routes!(invoices::finalize))
        .routes(routes!(invoices::void))
        .routes(routes!(simulate::simulate));
    let (public, openapi) = routes.split_for_parts();
    let internal = Router::new().route("/internal/v1/billing/organizations/{org}/standing", get(budget::standing));
    (public.merge(internal).layer(server::bounded()).with_state(api), openapi)
}

/// An instant in a body; `None` when it isn't said.
fn instant(pointer: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let refused = |error: ParseTimestampError| {
        Problem::unprocessable(format!("{text:?} is {error}")).at(pointer, error.to_string())
    };
    text.parse().map(Some).map_err(refused)
}
