//! Limit of concurrent requests.
//!
//! Each open request holds a connection to a service and some memory. Without a limit, a flood of one client would take
//! the service from all others. A request counts until its response body is sent or dropped. A request above the limit
//! gets 503 at once; it is not queued.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use http_kit::Problem;
use tokio::sync::Semaphore;

/// Limits the number of concurrent requests of `router` to `max`.
pub(crate) fn limit_open_requests(router: Router, max: usize) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(max)), acquire_permit))
}

async fn acquire_permit(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(permit) = permits.try_acquire_owned() else {
        tracing::warn!("request rejected: too many open requests");
        return Problem::unavailable("too many requests are open; retry later").into_response();
    };
    // The closure owns the permit and lives as long as the body.
    let hold_permit = move |error| {
        let _held = &permit;
        error
    };
    next.run(request).await.map(|body| Body::new(body.map_err(hold_permit)))
}
