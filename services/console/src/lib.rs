//! The one public door: who asks is checked here, and each request is passed on to the service it belongs to.
//!
//! The problem: clients should see one API at one address, whether the services run in one process or in many, and no
//! service should have to check keys or wonder whether a request came from outside.
//!
//! The invariant: a request passes only by a route of the table in `routes`, with a caller that was authenticated
//! here and without anything from outside that could be taken for one; bodies stream both ways, so a broken connection is
//! seen by the service it was meant for. `/internal` has no route, so it can't be reached from here.

mod admin_key;
mod authenticator;
mod docs;
mod gateway;
mod headers;
mod openapi;
mod page;
mod request_limit;
mod routes;
mod service_status;
mod upstream;

use axum::Router;
use service_kit::{Secrets, health::Health};

pub use self::{
    admin_key::{AdminArgs, AdminKey, AdminKeyError},
    upstream::{Upstream, UpstreamError, Upstreams},
};

/// The port the console listens on when nothing else is said.
pub const PORT: u16 = 8080;

/// How many requests may be open at once when nothing else is said.
pub const MAX_OPEN_REQUESTS: usize = 1024;

/// What the console is put together from.
#[derive(Clone)]
pub struct Settings {
    /// The installation's secrets.
    pub secrets: Secrets,
    /// The operator's key.
    pub admin_key: AdminKey,
    /// The services behind the door.
    pub upstreams: Upstreams,
    /// The checks of this process, which are those of the services in it.
    pub health: Health,
    /// What the installation runs on, for people: pairs like ("Bus", "Apache Kafka"). Anybody can read it.
    pub runs_on: Vec<(String, String)>,
    /// How many requests may be open at once; more are told 503.
    pub max_open_requests: usize,
}

/// The public door.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl Console {
    /// The door's routes, to be completed with [`finish`](service_kit::server::finish) (as
    /// [`serve_until_stopped`](service_kit::cli::serve_until_stopped) does).
    pub fn router(settings: Settings) -> Router {
        let max_open_requests = settings.max_open_requests;
        let door = gateway::Door::new(settings);
        let router =
            routes::routes().merge(page::routes()).merge(openapi::routes()).with_state(door).merge(docs::routes());
        request_limit::open_requests(router, max_open_requests)
    }
}
