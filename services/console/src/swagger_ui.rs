//! `/api/docs/`: Swagger UI, the interactive documentation of the API.
//!
//! All files come from this binary, and the page's policy lets the browser load nothing else. The documentation
//! therefore works offline, and no other site learns of its readers.

use axum::{Router, http::HeaderValue, middleware, response::Response};
use http_kit::server;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{openapi, security_headers::set_security_headers};

pub(crate) const PATH: &str = "/api/docs/";

/// Swagger UI sets inline styles and draws icons from data URLs; both stay within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn routes() -> Router {
    let config = Config::from(openapi::PATH)
        // The default validator is an external site that would receive the document.
        .validator_url("none")
        .use_base_layout();
    Router::from(SwaggerUi::new(PATH).config(config))
        .layer(middleware::map_response(secure_response))
        .layer(server::bounded())
}

async fn secure_response(mut response: Response) -> Response {
    set_security_headers(response.headers_mut(), HeaderValue::from_static(POLICY));
    response
}
