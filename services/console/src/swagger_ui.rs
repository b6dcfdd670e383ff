//! The API's documentation for people: Swagger UI, from within the binary.
//!
//! The problem: documentation that loads from elsewhere doesn't work offline and tells others who reads it. The invariant:
//! everything comes from this door, and the page's policy lets the browser load nothing else.

use axum::{Router, http::HeaderValue, middleware, response::Response};
use service_kit::server;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::page::protected;

/// Where people find it.
pub(crate) const PATH: &str = "/api/docs/";

/// Swagger UI sets styles on elements and draws icons from data; both stay within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Swagger UI's routes.
pub(crate) fn routes() -> Router {
    let config = Config::from(crate::openapi::PATH)
        // Else documents would be sent to a validator on the Internet.
        .validator_url("none")
        .use_base_layout();
    Router::from(SwaggerUi::new(PATH).config(config)).layer(middleware::map_response(secured)).layer(server::bounded())
}

async fn secured(mut response: Response) -> Response {
    protected(response.headers_mut(), HeaderValue::from_static(POLICY));
    response
}
