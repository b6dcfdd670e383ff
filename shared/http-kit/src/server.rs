//! Serving HTTP.
//!
//! The problem: a request may be too large, too slow, or panic, and a process must stop without cutting off those it is
//! answering, yet not wait for them forever.
//!
//! The invariant: every route is either [`bounded`] (time and body) or [`streaming`] (any length, but never silent for long);
//! behind [`finish`] every request has a trace, every failure is a problem, and who is still sending gets to read
//! the answer; [`serve`] drains for a bounded time.

use std::{any::Any, convert::Infallible, future::IntoFuture, io, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::Route,
    serve::ListenerExt,
};
use http_body_util::Limited;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutBody};

use crate::{fallback, problem::Problem, read_on, supervisor::panic_text, telemetry};

/// How long [`serve`] waits for open requests after it was asked to stop.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long the client of a [`streaming`] route may send nothing.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Why a server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("can't serve HTTP: {0}")]
    Listener(io::Error),
    /// The process can't hear signals.
    #[error("can't listen for signals: {0}")]
    Signals(io::Error),
}

/// What one request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest time until the answer begins.
    pub time: Duration,
    /// The most bytes in the request's body.
    pub body_bytes: usize,
}

impl Default for Limits {
    /// 30 seconds and 1 MiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(30), body_bytes: 1024 * 1024 }
    }
}

/// A layer for ordinary routes, with the default [`Limits`]: 413 for a larger body, 503 for a slower answer.
pub fn bounded() -> impl RouteLayer {
    bounded_to(Limits::default())
}

/// The same with other limits.
pub fn bounded_to(limits: Limits) -> impl RouteLayer {
    // The framework's own limit for extractors would come on top.
    (DefaultBodyLimit::disable(), middleware::from_fn_with_state(limits, within))
}

/// A layer for routes that stream their request or response: no limit on time or size, but a client that sends nothing for
/// a minute in the middle of a body counts as gone. The handler sees that, like any broken connection, as an error in the
/// body's stream, and must stop reading there.
pub fn streaming() -> impl RouteLayer {
    streaming_unless_silent(IDLE_LIMIT)
}

/// The same for clients that may send nothing for `limit`.
pub fn streaming_unless_silent(limit: Duration) -> impl RouteLayer {
    middleware::from_fn_with_state(limit, never_silent)
}

/// Completes a process's router, once and at the end (merging two completed routers panics): problems for unknown routes and
/// methods, for panics and for whatever else fails in plain text, and a trace for each request.
///
/// When a request is answered before its body has been read to its end, the answer leaves at once, and up to 16 MiB of the
/// rest are read on for at most 5 seconds: a client whose connection breaks while it writes may never read why. Of a longer
/// body that goes on, only a client that reads while it writes is sure to get the answer.
pub fn finish(router: Router) -> Router {
    router
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(middleware::from_fn(fallback::errors_as_problems))
        .layer(middleware::from_fn(telemetry::trace_requests))
        .layer(middleware::from_fn(read_on::after_the_answer))
}

/// Serves until `shutdown` is cancelled, then lets open requests finish for at most [`DRAIN_LIMIT`]. Endless responses
/// should watch the same token.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> Result<(), ServeError> {
    serve_draining(listener, router, shutdown, DRAIN_LIMIT).await
}

/// The same with another bound on draining.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails.
pub async fn serve_draining(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limit: Duration,
) -> Result<(), ServeError> {
    // Small answers must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "can't switch off Nagle's algorithm");
        }
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        served = server.into_future() => served.map_err(ServeError::Listener),
        () = overdue => {
            tracing::warn!(limit_ms = limit.as_millis(), "requests were still open when the server stopped");
            Ok(())
        }
    }
}

/// Waits for SIGINT or SIGTERM and gives its name.
///
/// # Errors
/// [`ServeError::Signals`] when the process can't hear them.
pub async fn shutdown_signal() -> Result<&'static str, ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

async fn within(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let answer = async {
        if request.body().size_hint().lower() > limits.body_bytes as u64 {
            let detail = format!("the body is larger than {} bytes", limits.body_bytes);
            return Problem::payload_too_large(detail).into_response();
        }
        next.run(request.map(|body| Body::new(Limited::new(body, limits.body_bytes)))).await
    };
    tokio::time::timeout(limits.time, answer).await.unwrap_or_else(|_| {
        tracing::warn!(limit_ms = limits.time.as_millis(), "request took too long");
        let detail = "the answer took too long; the request may or may not have been carried out";
        Problem::unavailable(detail).of_kind("/problems/timed-out", "timed out").into_response()
    })
}

async fn never_silent(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(TimeoutBody::new(limit, body)))).await
}

/// The panic itself was logged by the panic hook; this ties it to the request.
fn after_panic(panic: Box<dyn Any + Send>) -> Response {
    Problem::internal(format_args!("panicked: {}", panic_text(&*panic))).into_response()
}

/// A layer for a router's routes; spelled out since its type can't be.
pub trait RouteLayer: Layer<Route, Service: RouteService> + Clone + Send + Sync + 'static {}

impl<L: Layer<Route, Service: RouteService> + Clone + Send + Sync + 'static> RouteLayer for L {}

/// What a [`RouteLayer`] makes of a route.
pub trait RouteService:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> RouteService for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}
