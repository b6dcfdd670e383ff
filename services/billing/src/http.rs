//! The service's routes.

pub mod access;
pub mod account;
pub mod admin;
pub mod budget;
pub mod costs;
pub mod explanation;
mod instant;
pub mod invoices;
pub mod question;
pub mod state;
pub mod usage;
pub mod usage_rows;

use axum::{Router, routing::get};
use http_kit::server;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::state::Api;

/// The routes, and what they look like from outside.
pub fn router(api: Api) -> (Router, OpenApi) {
    let routes = OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(usage_rows::rows))
        .routes(routes!(costs::costs))
        .routes(routes!(admin::reconciliation::reconciliation))
        .routes(routes!(account::read))
        .routes(routes!(budget::read, budget::set))
        .routes(routes!(invoices::list))
        .routes(routes!(invoices::read))
        .routes(routes!(invoices::credit_note))
        .routes(routes!(explanation::explain))
        .routes(routes!(admin::plans::publish, admin::plans::list))
        .routes(routes!(admin::plans::read))
        .routes(routes!(admin::plans::publish_version))
        .routes(routes!(admin::plans::retire))
        .routes(routes!(admin::accounts::open))
        .routes(routes!(admin::accounts::change_time_zone))
        .routes(routes!(admin::accounts::assign_plan))
        .routes(routes!(admin::accounts::preview))
        .routes(routes!(admin::accounts::override_price))
        .routes(routes!(admin::accounts::grant_discount))
        .routes(routes!(admin::accounts::grant_credit))
        .routes(routes!(admin::invoices::finalize))
        .routes(routes!(admin::invoices::void))
        .routes(routes!(admin::simulations::simulate));
    let (public, openapi) = routes.split_for_parts();
    let internal = Router::new().route("/internal/v1/billing/organizations/{org}/standing", get(budget::standing));
    (public.merge(internal).layer(server::bounded()).with_state(api), openapi)
}
