//! The processes of the installation: the `main` of each binary, and the services that run in it.
//!
//! [`start`] runs any [`Roles`] of a service, in a process of its own or together with other services. If a handler and the
//! commands that produce its events share a process, the fast path delivers events to it right after their commit.

mod context;
mod openapi;
mod start;

use std::{fmt::Display, net::SocketAddr, process::ExitCode, time::Duration};

use axum::Router;
use http_kit::server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::start::{OpenService, RELAY, bus_opener, open};
pub use self::{
    context::ProcessContext,
    openapi::openapi_path,
    start::{Roles, RunningService, migrate_when_ready, start},
};
use crate::{
    config::LogArgs,
    health::Health,
    service::{Service, ServiceError},
    supervisor::Supervisor,
    telemetry,
};

/// How long tasks may take to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// The body of every binary's `main`: sets up telemetry, runs the command, flushes telemetry and reports an error on standard
/// error and in the log.
pub async fn run_main<E: Display>(
    name: &'static str,
    log: &LogArgs,
    command: impl Future<Output = Result<ExitCode, E>>,
) -> ExitCode {
    let guard = match telemetry::init(name, log) {
        Ok(guard) => guard,
        Err(error) => return fail(name, &error),
    };
    let result = command.await;
    guard.shutdown().await;
    result.unwrap_or_else(|error| fail(name, &error))
}

fn fail(name: &str, error: &dyn Display) -> ExitCode {
    tracing::error!(service = name, error = format!("{error:#}"), "process failed");
    eprintln!("{name}: {error:#}");
    ExitCode::FAILURE
}

/// A process that runs until a signal arrives: its supervised tasks and its health checks.
pub struct Process {
    pub supervisor: Supervisor,
    pub health: Health,
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    #[must_use]
    pub fn new() -> Self {
        Self { supervisor: Supervisor::new(CancellationToken::new()), health: Health::new() }
    }

    /// Starts roles of a service in this process.
    ///
    /// # Errors
    /// See [`start`].
    pub async fn start<S: Service>(
        &mut self,
        context: &ProcessContext,
        roles: Roles,
    ) -> Result<RunningService, ServiceError> {
        start::<S>(context, roles, &mut self.supervisor, &self.health).await
    }

    /// Serves `router` and the probes until a signal arrives, then drains requests and stops the tasks.
    ///
    /// # Errors
    /// When the address is in use or the listener fails. The tasks are stopped in this case, too.
    pub async fn serve(self, address: SocketAddr, router: Router) -> Result<(), ServiceError> {
        let result = serve_until_stopped(address, router, &self.health, self.supervisor.token()).await;
        self.supervisor.shutdown(SHUTDOWN_LIMIT).await;
        result
    }
}

/// Serves `router` and the probes until a signal arrives or `stop` is cancelled. Then cancels `stop` and drains requests.
///
/// # Errors
/// When the address is in use or the listener fails.
pub async fn serve_until_stopped(
    address: SocketAddr,
    router: Router,
    health: &Health,
    stop: CancellationToken,
) -> Result<(), ServiceError> {
    let in_use = |error| ServiceError::failed(format!("failed to listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(in_use)?;
    let metrics = telemetry::metrics_handle().map_err(ServiceError::failed)?;
    let router = server::finish(router).merge(health.router(metrics));
    let stop_on_signal = stop.clone();
    let signals = tokio::spawn(async move {
        match server::shutdown_signal().await {
            Ok(signal) => tracing::info!(signal, "stopping"),
            Err(error) => tracing::error!(%error, "stopping: signals cannot be received"),
        }
        stop_on_signal.cancel();
    });
    tracing::info!(%address, "serving");
    let served = server::serve(listener, router, stop.clone()).await;
    stop.cancel();
    signals.abort();
    served.map_err(ServiceError::failed)
}
