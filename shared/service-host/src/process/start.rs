//! Starting a service in a process: its HTTP routes, relay, subscriptions, sagas and background tasks.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::Router;
use epoch::{FastPath, bus::Bus, handler::Subscription as _};
use epoch_postgres::{PgHandler, PgStore, PgSubscription, Progress, Relay, is_transient, migrate};
use sqlx::{PgPool, migrate::MigrateError};
use tokio::{task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use super::{
    context::ProcessContext,
    openapi::{info, openapi_route},
};
use crate::{
    buses::BusOpener,
    event_type::EventType,
    health::Health,
    sagas,
    service::{Service, ServiceContext, ServiceError, ServiceParts},
    streams,
    supervisor::Supervisor,
};

/// How long [`migrate_when_ready`] waits for the database.
const DATABASE_LIMIT: Duration = Duration::from_secs(60);

/// How often the lag of the subscriptions is reported.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

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
