//! How many requests may be open at once.
//!
//! The problem: each open request holds a connection to a service and some memory; without a bound, a flood takes the
//! answers from everybody. The invariant: a request is open until its answer's body is sent or dropped, and one too many is
//! told 503 at once rather than queued.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use service_kit::Problem;
use tokio::sync::Semaphore;

/// Lets at most `most` requests of `router` be open at once.
pub(crate) fn open_requests(router: Router, most: usize) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(most)), admit))
}

async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(place) = places.try_acquire_owned() else {
        tracing::warn!("too many open requests");
        return Problem::unavailable("too many requests are open; ask again a little later").into_response();
    };
    let held_until_sent = move |error| {
        let _held = &place;
        error
    };
    next.run(request).await.map(|body| Body::new(body.map_err(held_until_sent)))
}
