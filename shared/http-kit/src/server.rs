//! The HTTP server: limits, graceful shutdown, and the layers around a process's router.
//!
//! Every route is either [`bounded`] in time and body size, or [`streaming`] with an idle limit. [`finish`] adds tracing,
//! problem responses and body draining. [`serve`] stops gracefully: it lets open requests finish for a bounded time.

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

use crate::{body_drain, fallback, problem::Problem, trace_requests::trace_requests};

/// How long [`serve`] waits for open requests during shutdown.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long the client of a [`streaming`] route may pause within a body.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("HTTP listener failed: {0}")]
    Listener(io::Error),
    #[error("cannot install signal handlers: {0}")]
    Signals(io::Error),
}

/// The limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time until the response starts.
    pub time: Duration,
    /// The size of the request body.
    pub body_bytes: usize,
}

impl Default for Limits {
    /// 30 seconds and 1 MiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(30), body_bytes: 1024 * 1024 }
    }
}

/// Returns a layer with the default [`Limits`]: 413 for a larger body, 503 for a slower response.
pub fn bounded() -> impl RouteLayer {
    bounded_to(Limits::default())
}

/// Returns a layer like [`bounded`] with other limits.
pub fn bounded_to(limits: Limits) -> impl RouteLayer {
    // axum's own limit for extractors would apply as well.
    (DefaultBodyLimit::disable(), middleware::from_fn_with_state(limits, enforce))
}

/// Returns a layer for routes that stream their request or response. It limits neither time nor size, but a client that
/// pauses for a minute within a body counts as disconnected. The handler sees an error in the body's stream, as for any
/// broken connection, and must stop reading.
pub fn streaming() -> impl RouteLayer {
    streaming_with_idle_limit(IDLE_LIMIT)
}

/// Returns a layer like [`streaming`] with another idle limit.
pub fn streaming_with_idle_limit(limit: Duration) -> impl RouteLayer {
    middleware::from_fn_with_state(limit, limit_idle_time)
}

/// Completes the router of a process with a span for each request and with problems for unknown routes and methods, panics
/// and plain-text errors. Call it once, after merging: axum panics when two completed routers are merged.
///
/// When a response is ready before the request body was read to its end, it is sent at once, and up to 16 MiB of the rest
/// are discarded for at most 5 seconds. Without that, a client whose connection breaks while it writes might never read the
/// response. Only clients that read while they write are sure to get the response to a longer body.
pub fn finish(router: Router) -> Router {
    router
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(CatchPanicLayer::custom(problem_after_panic))
        .layer(middleware::from_fn(fallback::errors_as_problems))
        .layer(middleware::from_fn(trace_requests))
        .layer(middleware::from_fn(body_drain::drain_after_response))
}

/// Serves until `shutdown` is cancelled, then lets open requests finish for at most [`DRAIN_LIMIT`]. Handlers of endless
/// responses should watch the same token.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> Result<(), ServeError> {
    serve_with_drain_limit(listener, router, shutdown, DRAIN_LIMIT).await
}

/// Serves like [`serve`] with another limit on draining.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails.
pub async fn serve_with_drain_limit(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limit: Duration,
) -> Result<(), ServeError> {
    // With Nagle's algorithm a small response would wait for the acknowledgement of the previous one.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
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
            tracing::warn!(limit_ms = limit.as_millis(), "stopped with requests still open");
            Ok(())
        }
    }
}

/// Waits for SIGINT or SIGTERM and returns its name.
///
/// # Errors
/// [`ServeError::Signals`] when the signal handlers cannot be installed.
pub async fn shutdown_signal() -> Result<&'static str, ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

async fn enforce(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let respond = async {
        if request.body().size_hint().lower() > limits.body_bytes as u64 {
            let detail = format!("the body is larger than {} bytes", limits.body_bytes);
            return Problem::payload_too_large(detail).into_response();
        }
        next.run(request.map(|body| Body::new(Limited::new(body, limits.body_bytes)))).await
    };
    tokio::time::timeout(limits.time, respond).await.unwrap_or_else(|_| {
        tracing::warn!(limit_ms = limits.time.as_millis(), "request timed out");
        let detail = "the request timed out; it may or may not have been executed";
        Problem::unavailable(detail).of_kind("/problems/timed-out", "timed out").into_response()
    })
}

async fn limit_idle_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(TimeoutBody::new(limit, body)))).await
}

/// Logs the panic under the request's trace id. The panic hook has logged it without one.
fn problem_after_panic(panic: Box<dyn Any + Send>) -> Response {
    Problem::internal(format_args!("panicked: {}", panic_message(&*panic))).into_response()
}

/// Returns the message of a panic.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A layer that [`Router::layer`] accepts. An alias for bounds that cannot be written as `impl Trait` in one place.
pub trait RouteLayer: Layer<Route, Service: RouteService> + Clone + Send + Sync + 'static {}

impl<L: Layer<Route, Service: RouteService> + Clone + Send + Sync + 'static> RouteLayer for L {}

/// The service that a [`RouteLayer`] returns.
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
