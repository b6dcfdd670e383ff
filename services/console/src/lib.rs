//! The gateway: the one public address of Catacloud, with the API and the status page.
//!
//! Clients see one API, whether the services run in one process or in many. The gateway authenticates a request and
//! forwards it to the service that owns the path, so no service has to check keys or distinguish public from internal
//! requests.
//!
//! Only routes of the table in `routes` are forwarded, with the authenticated caller and without any client header that
//! a service would trust. `/internal` has no route and cannot be reached. Bodies stream in both directions, so that the
//! service notices a broken connection of the client.

mod admin_key;
mod authenticator;
mod forward;
mod gateway;
mod headers;
mod openapi;
mod page;
mod request_limit;
mod routes;
mod security_headers;
mod service_status;
mod settings;
mod swagger_ui;
mod upstream;
mod upstreams;

use axum::Router;

pub use self::{
    admin_key::{AdminArgs, AdminKey, AdminKeyError},
    settings::Settings,
    upstream::{Upstream, UpstreamError},
    upstreams::Upstreams,
};

/// Default port of the gateway.
pub const PORT: u16 = 8080;

/// Default limit of concurrent requests.
pub const MAX_OPEN_REQUESTS: usize = 1024;

/// The gateway as a router.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl Console {
    /// Returns the routes of the gateway. Complete them with [`finish`](http_kit::server::finish), as
    /// [`serve_until_stopped`](service_host::process::serve_until_stopped) does.
    pub fn router(settings: Settings) -> Router {
        let max_open_requests = settings.max_open_requests;
        let gateway = gateway::Gateway::new(settings);
        let router = routes::routes().merge(page::routes()).with_state(gateway).merge(swagger_ui::routes());
        request_limit::limit_open_requests(router, max_open_requests)
    }
}
