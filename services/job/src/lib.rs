//! The job service: job configurations, jobs, and the assignment of jobs to machines.
//!
//! Users define configurations and create jobs from them. Machines claim queued jobs, send heartbeats during the run, and
//! report its outcome. The aggregates in [`domain`] make the decisions, projections maintain the read models, and leases
//! detect machines that stopped sending heartbeats.

mod budget_check;
mod claims;
pub mod domain;
mod http;
mod input_files;
mod leases;
mod projections;
mod timeline;

use std::sync::Arc;

use epoch::Repository;
use epoch_postgres::{PgHandler, ProjectionHandler};
use futures::FutureExt;
use service_host::{
    event_type::EventType,
    peer::Peer,
    service::{Service, ServiceContext, ServiceError, ServiceParts, Task},
};
use sqlx::migrate::Migrator;

use crate::{
    budget_check::BudgetCheck,
    http::state::HttpState,
    projections::{job_configurations::JobConfigurations, jobs::Jobs, known_files::KnownFiles},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The job service, to be run by a service host.
pub struct JobService;

impl Service for JobService {
    const NAME: &'static str = "job";
    const PORT: u16 = 8082;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn schemas() -> Vec<&'static str> {
        contracts::schemas()
    }

    fn events() -> Vec<EventType> {
        vec![
            EventType::of::<contracts::job::JobEvent>(contracts::job::AGGREGATE),
            EventType::of::<contracts::job_configuration::JobConfigurationEvent>(
                contracts::job_configuration::AGGREGATE,
            ),
        ]
    }

    fn assemble(host: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let jobs = Repository::new(host.store.clone());
        let billing = Peer::new(Self::NAME, host.peers.billing_url.clone(), host.secrets.clone());
        let state = HttpState {
            budget_check: BudgetCheck::new(billing.map_err(ServiceError::failed)?),
            store: host.store.clone(),
            progress: host.progress.clone(),
            secrets: host.secrets.clone(),
            stop: host.stop.clone(),
            configurations: Repository::new(host.store.clone()),
            jobs: jobs.clone(),
        };
        let store = host.store.clone();
        let leases: Task = Arc::new(move |stop| leases::run_expiry(store.clone(), jobs.clone(), stop).map(Ok).boxed());
        let handlers: Vec<Arc<dyn PgHandler>> = vec![
            Arc::new(ProjectionHandler(JobConfigurations)),
            Arc::new(ProjectionHandler(Jobs)),
            Arc::new(ProjectionHandler(KnownFiles)),
        ];
        let (router, openapi) = http::routes(state);
        Ok(ServiceParts { router, openapi, handlers, sagas: Vec::new(), tasks: vec![("leases", leases)] })
    }
}
