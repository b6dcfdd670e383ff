//! Running services in a process: HTTP, projections, sagas, relay and background tasks.
//!
//! [`start`] runs any [`Roles`] of a service, in a process of its own or together with other services. If a handler and the
//! commands that produce its events share a process, the fast path delivers events to it right after their commit.

use std::{convert::Infallible, fmt::Display, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, header},
    routing::get,
};
use epoch::{FastPath, bus::Bus, handler::Subscription as _, memory::MemoryBus};
use epoch_postgres::{PgHandler, PgStore, PgSubscription, Progress, Relay, is_transient, migrate};
use http_kit::{Caller, Problem, Role, Secrets, server};
use sqlx::{PgPool, migrate::MigrateError};
use tokio::{net::TcpListener, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{Info, OpenApi, info::LicenseBuilder};

use crate::{
    buses::{BusArgs, BusOpener},
    config::{DatabaseArgs, LogArgs, PeerArgs, ProcessArgs},
    event_type::EventType,
    health::Health,
    sagas,
    service::{Service, ServiceContext, ServiceError, ServiceParts},
    streams,
    supervisor::Supervisor,
    telemetry,
};

/// How long [`migrate_when_ready`] waits for the database.
const DATABASE_LIMIT: Duration = Duration::from_secs(60);

/// How often the lag of the subscriptions is reported.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// How long tasks may take to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// The name of each service's relay.
pub(crate) const RELAY: &str = "bus";

/// The parts of a service that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Serves HTTP.
    pub serve: bool,
    /// Runs projections, sagas and background tasks.
    pub project: bool,
    /// Publishes events to the bus.
    pub relay: bool,
}

impl Roles {
    pub const ALL: Roles = Roles { serve: true, project: true, relay: true };
    pub const SERVE: Roles = Roles { serve: true, project: false, relay: false };
    pub const PROJECT: Roles = Roles { serve: false, project: true, relay: false };
    pub const RELAY: Roles = Roles { serve: false, project: false, relay: true };
}

/// The resources that the services of a process share.
#[derive(Clone)]
pub struct ProcessContext {
    pub database: DatabaseArgs,
    pub bus: BusArgs,
    pub peers: PeerArgs,
    pub secrets: Secrets,
    /// Delivers events to the handlers of this process right after their commit.
    pub local: FastPath,
    /// The bus if `CATACLOUD_BUS` is `memory`.
    pub memory: MemoryBus,
}

impl ProcessContext {
    #[must_use]
    pub fn new(args: &ProcessArgs) -> Self {
        Self {
            database: args.database.clone(),
            bus: args.bus.clone(),
            peers: args.peers.clone(),
            secrets: args.secret.secrets.clone(),
            local: FastPath::new(),
            memory: MemoryBus::new(),
        }
    }
}

/// A store, its progress and the handlers of a service. Its appender task is aborted on drop.
pub(crate) struct OpenService {
    pub(crate) store: PgStore,
    pub(crate) progress: Progress,
    pub(crate) parts: ServiceParts,
    pub(crate) handlers: Vec<Arc<dyn PgHandler>>,
    pub(crate) appender: Appender,
}

/// The appender task of a store. Aborted on drop: by then requests and tasks have ended, so no append is pending.
pub(crate) struct Appender(AbortHandle);

impl Drop for Appender {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Builds a service on its store, without starting its tasks.
pub(crate) fn open<S: Service>(
    context: &ProcessContext,
    pool: PgPool,
    stop: CancellationToken,
) -> Result<OpenService, ServiceError> {
    let (store, appender) = PgStore::new(pool.clone(), context.local.clone());
    let appender = Appender(tokio::spawn(appender.run()).abort_handle());
    let progress = Progress::new(pool);
    let parts = S::assemble(&ServiceContext {
        store: store.clone(),
        progress: progress.clone(),
        secrets: context.secrets.clone(),
        peers: context.peers.clone(),
        stop,
    })?;
    let handlers = parts.all_handlers()?;
    Ok(OpenService { store, progress, parts, handlers, appender })
}

pub(crate) fn bus_opener<'a, S: Service>(context: &'a ProcessContext, store: &'a PgStore) -> BusOpener<'a> {
    BusOpener { service: S::NAME, schemas: S::schemas(), args: &context.bus, memory: &context.memory, store }
}

/// A started service. Dropping it stops its appender.
pub struct RunningService {
    pub router: Router,
    pub openapi: OpenApi,
    _appender: Appender,
}

/// Starts roles of a service. Its tasks run under `supervisor`, and its checks are added to `health`.
///
/// # Errors
/// [`ServiceError`] when a setting is invalid or the database is not available in time.
pub async fn start<S: Service>(
    context: &ProcessContext,
    roles: Roles,
    supervisor: &mut Supervisor,
    health: &Health,
) -> Result<RunningService, ServiceError> {
    let pool = context.database.pool(S::NAME)?;
    if roles == Roles::ALL {
        migrate_when_ready::<S>(&pool).await?;
    }
    let OpenService { store, progress, mut parts, handlers, appender } =
        open::<S>(context, pool.clone(), supervisor.token())?;
    parts.openapi.info = info(S::NAME);
    health.add_check(format!("{}-database", S::NAME), move || {
        let pool = pool.clone();
        async move { sqlx::query("select 1").execute(&pool).await.map(drop).map_err(|error| error.to_string()) }
    });
    if roles.project || roles.relay {
        let bus = bus_opener::<S>(context, &store).open(health, supervisor).await?;
        if roles.relay {
            spawn_relay::<S>(&store, &bus, supervisor);
        }
        if roles.project {
            report_lag::<S>(&progress, &handlers, supervisor);
            for handler in handlers {
                let subscription = PgSubscription::new(handler, store.clone(), progress.clone());
                subscribe::<S>(Arc::new(subscription), &bus, &context.local, supervisor);
            }
            sagas::run(S::NAME, &store, parts.sagas, supervisor);
            for (name, task) in parts.tasks {
                supervisor.spawn(format!("{}-{name}", S::NAME), move |stop| task(stop));
            }
        }
    }
    let aggregates = S::events().iter().map(EventType::aggregate).collect();
    let router = parts.router.merge(openapi_route::<S>(&parts.openapi, &context.secrets)?).merge(streams::routes(
        S::NAME,
        aggregates,
        store,
        context.secrets.clone(),
    ));
    Ok(RunningService { router, openapi: parts.openapi, _appender: appender })
}

/// Returns the document's `info`. The default would name the library.
fn info(service: &str) -> Info {
    const LICENCE: &str = "Apache-2.0";
    let title = format!("Catacloud {service}");
    let mut info = Info::new(title.as_str(), env!("CARGO_PKG_VERSION"));
    info.license = Some(LicenseBuilder::new().name(LICENCE).identifier(Some(LICENCE)).build());
    info
}

/// Returns the path at which the console reads the OpenAPI document of a service.
#[must_use]
pub fn openapi_path(service: &str) -> String {
    format!("/internal/v1/{service}/openapi.json")
}

fn openapi_route<S: Service>(openapi: &OpenApi, secrets: &Secrets) -> Result<Router, ServiceError> {
    let document = bytes::Bytes::from(openapi.to_json().map_err(ServiceError::failed)?);
    let secrets = secrets.clone();
    let respond = async move |headers: HeaderMap| {
        Caller::from_headers(&headers, &secrets)?.at_least(Role::Service)?;
        Ok::<_, Problem>(([(header::CONTENT_TYPE, "application/json")], document))
    };
    Ok(Router::new().route(&openapi_path(S::NAME), get(respond)).layer(server::bounded()))
}

fn spawn_relay<S: Service>(store: &PgStore, bus: &Arc<dyn Bus>, supervisor: &mut Supervisor) {
    let (store, bus) = (store.clone(), Arc::clone(bus));
    supervisor.spawn(format!("{}-relay", S::NAME), move |stop| {
        let relay = Relay::new(store.clone(), Arc::clone(&bus), RELAY);
        async move {
            relay.run(stop).await;
            Ok::<(), Infallible>(())
        }
    });
}

/// Spawns a task that reports the lag of the subscriptions as metrics.
fn report_lag<S: Service>(progress: &Progress, handlers: &[Arc<dyn PgHandler>], supervisor: &mut Supervisor) {
    let subscriptions: Vec<_> = handlers.iter().map(|handler| (handler.name(), handler.aggregates())).collect();
    let progress = progress.clone();
    supervisor.spawn(format!("{}-lag", S::NAME), move |stop| {
        let (progress, subscriptions) = (progress.clone(), subscriptions.clone());
        async move {
            progress.report_lag(subscriptions, LAG_INTERVAL, stop).await;
            Ok::<(), Infallible>(())
        }
    });
}

/// Spawns the tasks of a subscription: one for the fast path, where the subscription has one, and one for the bus.
fn subscribe<S: Service>(
    subscription: Arc<PgSubscription>,
    bus: &Arc<dyn Bus>,
    local: &FastPath,
    supervisor: &mut Supervisor,
) {
    let name = format!("{}-{}", S::NAME, subscription.name());
    if subscription.allows_fast_path() {
        let mut serving = Some(local.serve(subscription.clone()));
        supervisor.spawn(format!("{name}-local"), move |stop| {
            let serving = serving.take();
            async move {
                match serving {
                    Some(serving) => {
                        stop.run_until_cancelled(serving).await;
                        Ok(())
                    }
                    None => Err("fast path failed before; events are delivered by the bus only"),
                }
            }
        });
    }
    let bus = Arc::clone(bus);
    supervisor.spawn(name, move |stop| {
        let (bus, subscription) = (Arc::clone(&bus), subscription.clone());
        async move { bus.consume(subscription, stop).await }
    });
}

/// Migrates the service's tables. Waits up to a minute for a database that is not available yet.
///
/// # Errors
/// [`ServiceError::Migrate`].
pub async fn migrate_when_ready<S: Service>(pool: &PgPool) -> Result<(), ServiceError> {
    let deadline = Instant::now() + DATABASE_LIMIT;
    loop {
        match migrate(pool, S::NAME, S::migrations()).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(error)) if is_transient(&error) && Instant::now() < deadline => {
                tracing::warn!(service = S::NAME, %error, "waiting for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(source) => return Err(ServiceError::Migrate { service: S::NAME, source }),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn info_names_the_service() {
        let expected = json!({
            "title": "Catacloud job", "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        });
        assert_eq!(serde_json::to_value(super::info("job")).unwrap(), expected);
    }
}
