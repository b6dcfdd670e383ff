//! The route table of the gateway.
//!
//! A path outside the table is 404. A test of `catacloud` checks that each public path of each service leads to that
//! service.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http_kit::server;

use crate::{
    forward::{RouteTarget, forward},
    gateway::Gateway,
    openapi,
};

const ORGANIZATIONS: &str = "/api/v1/organizations";

/// Resources below one organization that other services than `organization` own.
const ORGANIZATION_RESOURCES: [(&str, RouteTarget); 9] = [
    ("job-configurations", RouteTarget::Job),
    ("jobs", RouteTarget::Job),
    ("uploads", RouteTarget::Upload),
    ("files", RouteTarget::File),
    ("usage", RouteTarget::Billing),
    ("costs", RouteTarget::Billing),
    ("account", RouteTarget::Billing),
    ("budget", RouteTarget::Billing),
    ("invoices", RouteTarget::Billing),
];

/// Billing resources of operators, below `/api/v1/admin`.
const ADMIN_RESOURCES: [&str; 5] =
    ["plans", "simulations", "metering", "organizations/{org}/account", "organizations/{org}/invoices"];

/// Returns the forwarded routes and the OpenAPI document.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    let to = |target: RouteTarget| {
        any(async move |State(gateway): State<Arc<Gateway>>, request| forward(&gateway, target, request).await)
    };
    let mut router = Router::new()
        .route(ORGANIZATIONS, to(RouteTarget::Organization))
        .route(&format!("{ORGANIZATIONS}/{{org}}"), to(RouteTarget::Organization))
        .route(&format!("{ORGANIZATIONS}/{{org}}/{{*rest}}"), to(RouteTarget::Organization));
    for (name, target) in ORGANIZATION_RESOURCES {
        let resource = format!("{ORGANIZATIONS}/{{org}}/{name}");
        router = router.route(&resource, to(target)).route(&format!("{resource}/{{*rest}}"), to(target));
    }
    for name in ADMIN_RESOURCES {
        let resource = format!("/api/v1/admin/{name}");
        router = router.route(&resource, to(RouteTarget::Billing));
        router = router.route(&format!("{resource}/{{*rest}}"), to(RouteTarget::Billing));
    }
    let document = Router::new().route(openapi::PATH, get(get_document)).layer(server::bounded());
    router.layer(server::streaming()).merge(document)
}

async fn get_document(State(gateway): State<Arc<Gateway>>) -> Response {
    let document = gateway.documents.current().await;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, document).into_response()
}
