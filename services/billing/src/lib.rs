//! Billing: what an organization stored and ran, and what it costs.
//!
//! The service listens to files and jobs, keeps what is metered of them ([`usage`]), and answers questions about any
//! period with pure functions ([`rating`]): storage in byte-milliseconds, run time in milliseconds, both exact, and what they cost
//! ([`ledger`]) by an account's plan. Accounts are opened by the plan that the installation's flat prices ([`settings`]) make then.

pub mod api;
pub mod budgets;
pub mod documents;
pub mod ledger;
pub mod sagas;
pub mod settings;

use std::sync::Arc;

use epoch::Timestamp;
use epoch_postgres::PgHandler;
use futures::FutureExt;
use service_kit::{
    http_client::Peer,
    operate::EventType,
    service::{Assembled, Host, Service, ServiceError, Task},
    streams::Owner,
};
use sqlx::migrate::Migrator;
use usage::{
    read_models::{accounts, file_links, runs, storage_changes},
    reconciliation::{self, copy::Copies, rollups},
};

use crate::ledger::Ledger;

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

    fn events() -> Vec<EventType> {
        use contracts::{billing_account, invoice, plan};
        vec![
            EventType::of::<billing_account::BillingAccountEvent>(billing_account::AGGREGATE),
            EventType::of::<invoice::InvoiceEvent>(invoice::AGGREGATE),
            EventType::of::<plan::PlanEvent>(plan::AGGREGATE),
        ]
    }

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let prices = settings::prices(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()));
        let prices = prices.map_err(ServiceError::failed)?;
        let ledger = Ledger::new(host.store.clone(), prices.plan(), Arc::new(Timestamp::now));
        let (router, openapi) =
            api::router(api::Api { pool: host.pool().clone(), secrets: host.secrets.clone(), ledger: ledger.clone() });
        let handlers: Vec<Arc<dyn PgHandler>> = vec![
            Arc::new(storage_changes::StorageChanges),
            Arc::new(runs::Runs),
            Arc::new(file_links::FileLinks),
            Arc::new(accounts::Accounts),
            Arc::new(sagas::OpenAccounts::new(ledger.clone())),
        ];
        let pool = host.pool().clone();
        let reconciliation: Task = Arc::new(move |stop| {
            let checks = rollups::run(pool.clone(), stop);
            Box::pin(async move { checks.await.map_err(ServiceError::failed) })
        });
        let files = Peer::new(Self::NAME, host.peers.file_url.clone(), host.secrets.clone());
        let files = Owner::new(files.map_err(ServiceError::failed)?, "file", contracts::file::AGGREGATE);
        let jobs = Peer::new(Self::NAME, host.peers.job_url.clone(), host.secrets.clone());
        let jobs = Owner::new(jobs.map_err(ServiceError::failed)?, "job", contracts::job::AGGREGATE);
        let copies = Copies::new(host.pool().clone(), files, jobs);
        let copies: Task = Arc::new(move |stop| {
            let copies = copies.clone();
            Box::pin(async move { copies.run(stop).await.map_err(ServiceError::failed) })
        });
        let store = host.store.clone();
        let account_checks: Task = Arc::new(move |stop| {
            let checks = reconciliation::accounts::run(store.clone(), stop);
            Box::pin(async move { checks.await.map_err(ServiceError::failed) })
        });
        let budgets: Task = Arc::new(move |stop| budgets::watch(ledger.clone(), stop).map(Ok).boxed());
        let tasks = vec![
            ("reconciliation", reconciliation),
            ("reconciliation-of-copies", copies),
            ("reconciliation-of-accounts", account_checks),
            ("budgets", budgets),
        ];
        Ok(Assembled { router, openapi, handlers, sagas: Vec::new(), tasks })
    }
}
