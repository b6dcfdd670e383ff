//! Billing: what an organization stored and ran, and what it costs.
//!
//! The service listens to files and jobs, keeps what is metered of them ([`projections`]), and answers questions about any
//! period with pure functions ([`domain`]): storage in byte-milliseconds, run time in milliseconds, both exact, and costs at
//! the installation's flat prices ([`settings`]).

pub mod api;
pub mod domain;
pub mod metering;
pub mod projections;
pub mod rate;
pub mod reconciliation;
pub mod settings;

use std::sync::Arc;

use epoch_postgres::PgHandler;
use service_kit::service::{Assembled, Host, Service, ServiceError, Task};
use sqlx::migrate::Migrator;

/// The service's own tables.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// The billing service.
pub struct BillingService;

impl Service for BillingService {
    const NAME: &'static str = "billing";
    const PORT: u16 = 8084;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn schemas() -> Vec<&'static str> {
        contracts::schemas()
    }

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let prices = settings::prices(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()));
        let prices = prices.map_err(ServiceError::failed)?;
        let (router, openapi) = api::router(api::Api {
            pool: host.pool().clone(),
            secrets: host.secrets.clone(),
            prices: Arc::new(prices),
        });
        let handlers: Vec<Arc<dyn PgHandler>> = vec![
            Arc::new(projections::storage_changes::StorageChanges),
            Arc::new(projections::runs::Runs),
            Arc::new(projections::file_links::FileLinks),
        ];
        let pool = host.pool().clone();
        let reconciliation: Task = Arc::new(move |stop| {
            let checks = reconciliation::run(pool.clone(), stop);
            Box::pin(async move { checks.await.map_err(ServiceError::failed) })
        });
        Ok(Assembled { router, openapi, handlers, tasks: vec![("reconciliation", reconciliation)] })
    }
}
