//! Billing: usage, costs and invoices of organizations.
//!
//! The service records the storage and the run time of organizations from the events of files and jobs ([`usage`]). Pure functions
//! ([`rating`]) compute usage and costs of any period from them: storage in byte-milliseconds and run time in milliseconds, both exact.
//! [`invoicing`] applies the plan of an account. A new account gets the standard plan, which has the installation's flat prices
//! ([`settings`]).

pub mod background;
pub mod cli;
pub mod export;
pub mod http;
pub mod invoicing;
pub mod settings;

use std::sync::Arc;

use epoch::Timestamp;
use epoch_postgres::{PgHandler, ProjectionHandler};
use futures::FutureExt;
use service_host::{
    event_type::EventType,
    service::{Service, ServiceContext, ServiceError, ServiceParts, Task},
};
use sqlx::migrate::Migrator;
use usage::read_models::{accounts, file_links, runs, storage_changes};

use crate::{http::state::Api, invoicing::ledger::Ledger};

/// Migrations of the service's schema.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

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

    fn events() -> Vec<EventType> {
        use contracts::{billing_account, invoice, plan};
        vec![
            EventType::of::<billing_account::BillingAccountEvent>(billing_account::AGGREGATE),
            EventType::of::<invoice::InvoiceEvent>(invoice::AGGREGATE),
            EventType::of::<plan::PlanEvent>(plan::AGGREGATE),
        ]
    }

    fn assemble(host: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let prices = settings::prices(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()));
        let prices = prices.map_err(ServiceError::failed)?;
        let ledger = Ledger::new(host.store.clone(), prices.plan(), Arc::new(Timestamp::now));
        let (router, openapi) =
            http::router(Api { pool: host.pool().clone(), secrets: host.secrets.clone(), ledger: ledger.clone() });
        let handlers: Vec<Arc<dyn PgHandler>> = vec![
            Arc::new(ProjectionHandler(storage_changes::StorageChanges)),
            Arc::new(ProjectionHandler(runs::Runs)),
            Arc::new(ProjectionHandler(file_links::FileLinks)),
            Arc::new(ProjectionHandler(accounts::Accounts)),
            Arc::new(background::open_accounts::OpenAccounts::new(ledger.clone())),
        ];
        let budgets: Task = Arc::new(move |stop| background::budgets::watch(ledger.clone(), stop).map(Ok).boxed());
        let mut tasks = background::reconciliation::tasks(Self::NAME, host)?.to_vec();
        tasks.push(("budgets", budgets));
        Ok(ServiceParts { router, openapi, handlers, sagas: Vec::new(), tasks })
    }
}
