//! HTTP routes of the organization service.
//!
//! A route of one organization checks membership first (404), then the caller's role (403), and only then reads
//! anything. A caller therefore cannot find out which other organizations exist.

mod access;
mod api_keys;
mod authenticate;
mod members;
mod organizations;
mod parameters;
mod problem;
mod state;
mod validation;

use axum::{Router, routing::post};
use http_kit::server;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use state::HttpState;

/// Returns all routes, and the OpenAPI document of the public ones.
pub fn router(state: HttpState) -> (Router, OpenApi) {
    let public = OpenApiRouter::new()
        .routes(routes!(organizations::create_organization, organizations::list_organizations))
        .routes(routes!(organizations::get_organization, organizations::rename_organization))
        .routes(routes!(members::add_member))
        .routes(routes!(members::change_member_role, members::remove_member))
        .routes(routes!(api_keys::create_api_key, api_keys::list_api_keys))
        .routes(routes!(api_keys::revoke_api_key));
    let (public, openapi) = public.split_for_parts();
    let internal = Router::new().route("/internal/v1/organization/authenticate", post(authenticate::authenticate));
    (public.merge(internal).layer(server::bounded()).with_state(state), openapi)
}
