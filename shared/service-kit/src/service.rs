//! What a service is, and how it becomes a process.
//!
//! The problem: every service serves HTTP, runs its projections and sagas, and relays its events, alone or together with the
//! others in one process; written out in each `main` this differs by accident.
//!
//! The invariant: a service only says what it is made of ([`Service`]); [`start`] runs any set of [`Roles`] of it on a
//! given bus, the same way in a process of its own and in the co-located deployment. The local way is wired wherever a handler
//! and its commands share a process.

use std::{convert::Infallible, fs, io, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, header},
    routing::get,
};
use epoch::{bus::Bus, handler::Subscription as _, local::LocalBus, memory::MemoryBus};
use epoch_kafka::{KafkaBus, KafkaConfig};
use epoch_postgres::{
    PgBus, PgHandler, PgStore, PgSubscription, Progress, Relay, SharedTable, WriteCheckedHandler, check_tables,
    is_transient, migrate,
};
use epoch_rabbitmq::{RabbitBus, RabbitConfig};
use epoch_registry::{FileRegistry, HttpRegistry, RegistryError, SchemaRegistry};
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{Info, OpenApi, info::LicenseBuilder};

use crate::{
    Caller, Problem, Role, Secrets,
    config::{BusArgs, ConfigError, DatabaseArgs, PeerArgs, SchemaRegistryPlace},
    health::{Health, LiveFlag},
    operate::EventType,
    saga::{self, ServiceSaga},
    server, streams,
    supervisor::Supervisor,
};

/// How long to wait for a database that isn't there at the start.
const DATABASE_LIMIT: Duration = Duration::from_secs(60);

/// How often a bus is asked whether it can go on.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked how far the handlers are behind.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// The name of each service's relay.
pub(crate) const RELAY: &str = "bus";

/// A service: what it is made of.
pub trait Service: 'static {
    /// Its name, which is its database schema too.
    const NAME: &'static str;
    /// The port it listens on when nothing else is said.
    const PORT: u16;

    /// Its own tables, with versions from 1,000 on.
    fn migrations() -> &'static Migrator;

    /// The schemas of its events, earlier versions included, for a schema registry; those of others do no harm.
    fn schemas() -> Vec<&'static str>;

    /// The events of its aggregates, for people who look at them; the streams of these aggregates are [handed out](crate::streams).
    fn events() -> Vec<EventType> {
        Vec::new()
    }

    /// Puts it together.
    ///
    /// # Errors
    /// When a setting of its own can't be used.
    fn assemble(host: &Host) -> Result<Assembled, ServiceError>;
}

/// What a service is given.
#[derive(Clone)]
pub struct Host {
    /// Its event store.
    pub store: PgStore,
    /// How far its projections are.
    pub progress: Progress,
    /// The installation's secrets.
    pub secrets: Secrets,
    /// Where the other services are.
    pub peers: PeerArgs,
    /// Cancelled when the process is to end.
    pub stop: CancellationToken,
}

impl Host {
    /// The service's own tables.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.store.pool()
    }
}

/// Work that a service does in the background, beside its handlers.
pub type Task =
    Arc<dyn Fn(CancellationToken) -> futures::future::BoxFuture<'static, Result<(), ServiceError>> + Send + Sync>;

/// A service, put together.
pub struct Assembled {
    /// Its routes, each [bounded](crate::server::bounded) or [streaming](crate::server::streaming).
    pub router: Router,
    /// What the routes look like from outside; [`start`] fills in whose they are.
    pub openapi: OpenApi,
    /// Its projections, and sagas that have nothing but a subscription.
    pub handlers: Vec<Arc<dyn PgHandler>>,
    /// Its sagas that have timers or effects too.
    pub sagas: Vec<ServiceSaga>,
    /// What else runs where the projections run.
    pub tasks: Vec<(&'static str, Task)>,
}

impl Assembled {
    /// All that listens to events. In debug builds, of which tests are made, what they write is watched.
    pub(crate) fn all_handlers(&self) -> Result<Vec<Arc<dyn PgHandler>>, SharedTable> {
        let mut all = self.handlers.clone();
        all.extend(self.sagas.iter().map(ServiceSaga::handler));
        check_tables(&all)?;
        if cfg!(debug_assertions) {
            all = all.into_iter().map(|handler| WriteCheckedHandler::new(handler) as Arc<dyn PgHandler>).collect();
        }
        Ok(all)
    }
}

/// Why a service can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A setting can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting of the service's own can't be used, or a task of it failed.
    #[error("{detail}")]
    Failed {
        /// Why.
        detail: String,
    },
    /// Two of its handlers write the same table, and one of them could be rebuilt.
    #[error(transparent)]
    SharedTable(#[from] SharedTable),
    /// The tables can't be brought up to date.
    #[error("tables of {service} can't be brought up to date: {source}")]
    Migrate {
        /// Whose.
        service: &'static str,
        /// What was seen.
        source: MigrateError,
    },
    /// Kafka can't be used as it is set.
    #[error(transparent)]
    Kafka(#[from] epoch_kafka::Error),
    /// The schema registry can't be used as it is set.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The certificates of RabbitMQ's authorities can't be read.
    #[error("AMQP_CA_FILE: {} can't be read", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What was seen.
        source: io::Error,
    },
    /// RabbitMQ's settings can't be used.
    #[error(transparent)]
    Rabbit(#[from] epoch_rabbitmq::Error),
}

impl ServiceError {
    /// A failure of the service's own.
    pub fn failed(detail: impl std::fmt::Display) -> Self {
        Self::Failed { detail: detail.to_string() }
    }
}

/// Which parts of a service a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// HTTP.
    pub serve: bool,
    /// Projections, sagas and background tasks.
    pub project: bool,
    /// Publishing to the bus.
    pub relay: bool,
}

impl Roles {
    /// Everything.
    pub const ALL: Roles = Roles { serve: true, project: true, relay: true };
}

/// What the services of one process share.
#[derive(Clone)]
pub struct Shared {
    /// Where the database is.
    pub database: DatabaseArgs,
    /// Which bus there is.
    pub bus: BusArgs,
    /// Where the others are.
    pub peers: PeerArgs,
    /// The installation's secrets.
    pub secrets: Secrets,
    /// The handlers of this process.
    pub local: LocalBus,
    /// The bus, when it is this process's memory.
    pub memory: MemoryBus,
}

/// A service that runs; its appender ends with it.
pub struct Running {
    /// The service's routes.
    pub router: Router,
    /// What they look like from outside.
    pub openapi: OpenApi,
    appender: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Requests have been answered and tasks have ended by now, so nothing waits for it.
        self.appender.abort();
    }
}

/// Starts roles of a service; its tasks live in `supervisor` and its checks in `health`.
///
/// # Errors
/// [`ServiceError`] when a setting can't be used or the database isn't there in time.
pub async fn start<S: Service>(
    shared: &Shared,
    roles: Roles,
    supervisor: &mut Supervisor,
    health: &Health,
) -> Result<Running, ServiceError> {
    let pool = shared.database.pool(S::NAME)?;
    if roles == Roles::ALL {
        bring_up_to_date::<S>(&pool).await?;
    }
    let (store, appender) = PgStore::new(pool.clone(), shared.local.clone());
    let appender = tokio::spawn(appender.run()).abort_handle();
    let progress = Progress::new(pool.clone());
    let host = Host {
        store: store.clone(),
        progress: progress.clone(),
        secrets: shared.secrets.clone(),
        peers: shared.peers.clone(),
        stop: supervisor.token(),
    };
    let mut assembled = S::assemble(&host)?;
    let handlers = assembled.all_handlers()?;
    assembled.openapi.info = info(S::NAME);
    health.add_check(format!("{}-database", S::NAME), move || {
        let pool = pool.clone();
        async move { sqlx::query("select 1").execute(&pool).await.map(drop).map_err(|error| error.to_string()) }
    });
    if roles.project || roles.relay {
        let bus = connect::<S>(shared, &store, health, supervisor).await?;
        if roles.relay {
            let (store, bus) = (store.clone(), Arc::clone(&bus));
            supervisor.spawn(format!("{}-relay", S::NAME), move |stop| {
                let relay = Relay::new(store.clone(), Arc::clone(&bus), RELAY);
                async move {
                    relay.run(stop).await;
                    Ok::<(), Infallible>(())
                }
            });
        }
        if roles.project {
            report_lag::<S>(&progress, &handlers, supervisor);
            for handler in handlers {
                let subscription = PgSubscription::new(handler, store.clone(), progress.clone());
                subscribe::<S>(Arc::new(subscription), &bus, &shared.local, supervisor);
            }
            saga::run(S::NAME, &store, assembled.sagas, supervisor);
            for (name, task) in assembled.tasks {
                supervisor.spawn(format!("{}-{name}", S::NAME), move |stop| task(stop));
            }
        }
    }
    let aggregates = S::events().iter().map(EventType::aggregate).collect();
    let router = assembled
        .router
        .merge(openapi_route::<S>(&assembled.openapi, &shared.secrets)?)
        .merge(streams::routes(S::NAME, aggregates, store, shared.secrets.clone()));
    Ok(Running { router, openapi: assembled.openapi, appender })
}

/// Whose document it is; else it would present itself as the library it is made with.
fn info(service: &str) -> Info {
    const LICENCE: &str = "Apache-2.0";
    let title = format!("Catacloud {service}");
    let mut info = Info::new(title.as_str(), env!("CARGO_PKG_VERSION"));
    info.license = Some(LicenseBuilder::new().name(LICENCE).identifier(Some(LICENCE)).build());
    info
}

/// Where the public door finds what a service's routes look like.
#[must_use]
pub fn openapi_path(service: &str) -> String {
    format!("/internal/v1/{service}/openapi.json")
}

fn openapi_route<S: Service>(openapi: &OpenApi, secrets: &Secrets) -> Result<Router, ServiceError> {
    let document = bytes::Bytes::from(openapi.to_json().map_err(ServiceError::failed)?);
    let secrets = secrets.clone();
    let answer = async move |headers: HeaderMap| {
        Caller::from_headers(&headers, &secrets)?.at_least(Role::Service)?;
        Ok::<_, Problem>(([(header::CONTENT_TYPE, "application/json")], document))
    };
    Ok(Router::new().route(&openapi_path(S::NAME), get(answer)).layer(server::bounded()))
}

/// Keeps the figures of how far the handlers are behind.
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

fn subscribe<S: Service>(
    subscription: Arc<PgSubscription>,
    bus: &Arc<dyn Bus>,
    local: &LocalBus,
    supervisor: &mut Supervisor,
) {
    let name = format!("{}-{}", S::NAME, subscription.name());
    if subscription.locally() {
        let serving = local.serve(subscription.clone());
        let mut serving = Some(serving);
        supervisor.spawn(format!("{name}-local"), move |stop| {
            let serving = serving.take();
            async move {
                match serving {
                    Some(serving) => {
                        stop.run_until_cancelled(serving).await;
                        Ok(())
                    }
                    None => Err("the local way ended; the bus goes on alone"),
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

async fn connect<S: Service>(
    shared: &Shared,
    store: &PgStore,
    health: &Health,
    supervisor: &mut Supervisor,
) -> Result<Arc<dyn Bus>, ServiceError> {
    use crate::config::Bus as Choice;
    let namespace = shared.bus.namespace();
    Ok(match shared.bus.resolve()? {
        Choice::Kafka { bootstrap_servers } => {
            let bus = Arc::new(kafka::<S>(&shared.bus, bootstrap_servers)?);
            let (flag, watched) = (health.add_flag(format!("{}-kafka", S::NAME)), Arc::clone(&bus));
            supervisor.spawn(format!("{}-kafka-health", S::NAME), move |stop| {
                watch(Arc::clone(&watched), flag.clone(), stop)
            });
            bus
        }
        Choice::Rabbit { url, ca_file } => Arc::new(rabbit::<S>(&shared.bus, url, ca_file)?),
        Choice::Postgres => Arc::new(pg_bus::<S>(namespace, store).await?),
        Choice::Memory => Arc::new(shared.memory.with_group_prefix(S::NAME)),
    })
}

fn registry(place: SchemaRegistryPlace) -> Result<Arc<dyn SchemaRegistry>, RegistryError> {
    Ok(match place {
        SchemaRegistryPlace::Urls(urls) => Arc::new(HttpRegistry::new(&urls)?),
        SchemaRegistryPlace::Directory(path) => Arc::new(FileRegistry::open(path)?),
    })
}

fn kafka<S: Service>(args: &BusArgs, bootstrap_servers: String) -> Result<KafkaBus, ServiceError> {
    let namespace = args.namespace();
    let config = KafkaConfig {
        namespace: namespace.to_owned(),
        group_prefix: format!("{namespace}.{}", S::NAME),
        ..KafkaConfig::new(bootstrap_servers)
    };
    Ok(match args.schema_registry()? {
        None => KafkaBus::connect(config)?,
        Some(place) => KafkaBus::connect_with(config, registry(place)?, &S::schemas())?,
    })
}

fn rabbit<S: Service>(args: &BusArgs, url: String, ca_file: Option<PathBuf>) -> Result<RabbitBus, ServiceError> {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| ServiceError::CaFile { path, source });
    let namespace = args.namespace();
    let config = RabbitConfig {
        authorities: ca_file.map(read).transpose()?,
        namespace: namespace.to_owned(),
        group_prefix: format!("{namespace}.{}", S::NAME),
        ..RabbitConfig::new(url)
    };
    Ok(match args.schema_registry()? {
        None => RabbitBus::new(config)?,
        Some(place) => RabbitBus::new_with(config, registry(place)?, &S::schemas())?,
    })
}

async fn pg_bus<S: Service>(namespace: &str, store: &PgStore) -> Result<PgBus, ServiceError> {
    let bus = PgBus::connect(store.pool().clone(), namespace, S::NAME).await;
    bus.map_err(|source| ServiceError::Migrate { service: S::NAME, source })
}

/// The bus of a process that only reads from it, beside those that serve; `None` when it is another process's memory.
pub(crate) async fn bus_beside<S: Service>(
    shared: &Shared,
    store: &PgStore,
) -> Result<Option<Arc<dyn Bus>>, ServiceError> {
    use crate::config::Bus as Choice;
    let namespace = shared.bus.namespace();
    Ok(match shared.bus.resolve()? {
        Choice::Kafka { bootstrap_servers } => Some(Arc::new(kafka::<S>(&shared.bus, bootstrap_servers)?)),
        Choice::Rabbit { url, ca_file } => Some(Arc::new(rabbit::<S>(&shared.bus, url, ca_file)?)),
        Choice::Postgres => Some(Arc::new(pg_bus::<S>(namespace, store).await?)),
        Choice::Memory => None,
    })
}

/// Says on `flag` whether the bus can go on: a consumer that is stuck for good needs a new process.
async fn watch(bus: Arc<KafkaBus>, flag: LiveFlag, stop: CancellationToken) -> Result<(), Infallible> {
    while stop.run_until_cancelled(tokio::time::sleep(HEALTH_INTERVAL)).await.is_some() {
        match bus.healthy() {
            Ok(()) => flag.recover(),
            Err(unhealthy) => flag.fail(unhealthy.to_string()),
        }
    }
    Ok(())
}

/// Makes or changes the service's tables; waits a while for a database that isn't there yet.
///
/// # Errors
/// [`ServiceError::Migrate`].
pub async fn bring_up_to_date<S: Service>(pool: &PgPool) -> Result<(), ServiceError> {
    let deadline = tokio::time::Instant::now() + DATABASE_LIMIT;
    loop {
        match migrate(pool, S::NAME, S::migrations()).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(error)) if is_transient(&error) && tokio::time::Instant::now() < deadline => {
                tracing::warn!(service = S::NAME, %error, "waiting for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(source) => return Err(ServiceError::Migrate { service: S::NAME, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_document_says_whose_it_is() {
        let expected = json!({
            "title": "Catacloud job", "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        });
        assert_eq!(serde_json::to_value(super::info("job")).unwrap(), expected);
    }
}
