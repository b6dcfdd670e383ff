//! The job service: job configurations, jobs, and which machine runs which job.
//!
//! Users define configurations and create jobs from them; machines claim the jobs that wait, say that they live while they
//! work, and tell how it ended. [`domain`] decides all of that; projections make it readable; leases notice machines that
//! went away.

mod budget_check;
mod claims;
pub mod domain;
mod http;
mod input_files;
mod leases;
mod projections;
mod timeline;
mod transaction_error;

use std::sync::Arc;

use epoch::Repository;
use epoch_postgres::PgHandler;
use futures::FutureExt;
use service_kit::{
    http_client::Peer,
    operate::EventType,
    service::{Assembled, Host, Service, ServiceError, Task},
};
use sqlx::migrate::Migrator;

use crate::{
    budget_check::Standing,
    http::Api,
    projections::{job_configurations::JobConfigurations, jobs::Jobs, known_files::KnownFiles},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The job service.
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

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let jobs = Repository::new(host.store.clone());
        let billing = Peer::new(Self::NAME, host.peers.billing_url.clone(), host.secrets.clone());
        let api = Api {
            standing: Standing::new(billing.map_err(ServiceError::failed)?),
            store: host.store.clone(),
            progress: host.progress.clone(),
            secrets: host.secrets.clone(),
            stop: host.stop.clone(),
            configurations: Repository::new(host.store.clone()),
            jobs: jobs.clone(),
        };
        let store = host.store.clone();
        let leases: Task = Arc::new(move |stop| leases::watch(store.clone(), jobs.clone(), stop).map(Ok).boxed());
        let handlers: Vec<Arc<dyn PgHandler>> = vec![Arc::new(JobConfigurations), Arc::new(Jobs), Arc::new(KnownFiles)];
        let (router, openapi) = http::routes(api);
        Ok(Assembled { router, openapi, handlers, sagas: Vec::new(), tasks: vec![("leases", leases)] })
    }
}
