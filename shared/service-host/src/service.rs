//! The [`Service`] trait: the parts of a service, independent of the processes that run it.

use std::sync::Arc;

use axum::Router;
use epoch_postgres::{PgHandler, PgStore, Progress, SharedTable, WriteCheckedHandler, check_tables};
use http_kit::Secrets;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::{
    buses::{BusConfigError, BusError},
    config::{ConfigError, PeerArgs},
    event_type::EventType,
    sagas::ServiceSaga,
};

pub trait Service: 'static {
    /// The name, which is also the name of its database schema.
    const NAME: &'static str;
    /// The default port.
    const PORT: u16;

    /// Returns the migrations of the service's own tables. Their versions start at 1,000.
    fn migrations() -> &'static Migrator;

    /// Returns the Avro schemas of the service's events, including earlier versions, for a schema registry. Schemas of other
    /// services may be included.
    fn schemas() -> Vec<&'static str>;

    /// Returns the event types of its aggregates. Operations print them, and other services may read their streams.
    fn events() -> Vec<EventType> {
        Vec::new()
    }

    /// Builds the service.
    ///
    /// # Errors
    /// [`ServiceError`] when a setting of the service is invalid.
    fn assemble(context: &ServiceContext) -> Result<ServiceParts, ServiceError>;
}

/// The resources that a process provides to a service.
#[derive(Clone)]
pub struct ServiceContext {
    pub store: PgStore,
    /// The progress of the service's subscriptions.
    pub progress: Progress,
    pub secrets: Secrets,
    /// The addresses of the other services.
    pub peers: PeerArgs,
    /// Cancelled when the process shuts down.
    pub stop: CancellationToken,
}

impl ServiceContext {
    /// Returns the connections to the service's own tables.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.store.pool()
    }
}

/// A background task of a service.
pub type Task =
    Arc<dyn Fn(CancellationToken) -> futures::future::BoxFuture<'static, Result<(), ServiceError>> + Send + Sync>;

/// The parts of a service.
pub struct ServiceParts {
    /// The routes, each with a [bounded](http_kit::server::bounded) or [streaming](http_kit::server::streaming) layer.
    pub router: Router,
    /// The description of the public routes. The process sets its `info`.
    pub openapi: OpenApi,
    /// The projections, and the sagas that consist of a subscription only.
    pub handlers: Vec<Arc<dyn PgHandler>>,
    /// The sagas with timers or effects.
    pub sagas: Vec<ServiceSaga>,
    /// Background tasks, which run in the processes that run the projections.
    pub tasks: Vec<(&'static str, Task)>,
}

impl ServiceParts {
    /// Returns the handlers of projections and sagas. Debug builds check that a handler writes only its declared tables.
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

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting or a background task of the service itself.
    #[error("{detail}")]
    Failed { detail: String },
    /// Two handlers write the same table, and at least one of them is rebuildable.
    #[error(transparent)]
    SharedTable(#[from] SharedTable),
    #[error("migration of service {service} failed: {source}")]
    Migrate { service: &'static str, source: MigrateError },
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl ServiceError {
    pub fn failed(detail: impl std::fmt::Display) -> Self {
        Self::Failed { detail: detail.to_string() }
    }
}

impl From<BusConfigError> for ServiceError {
    fn from(error: BusConfigError) -> Self {
        Self::Bus(error.into())
    }
}
