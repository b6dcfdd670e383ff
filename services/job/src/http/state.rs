//! State shared by all routes.

use axum::extract::FromRef;
use epoch::Repository;
use epoch_postgres::{PgStore, Progress};
use http_kit::Secrets;
use tokio_util::sync::CancellationToken;

use crate::{
    budget_check::BudgetCheck,
    domain::{job::Job, job_configuration::JobConfiguration},
};

#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) store: PgStore,
    pub(crate) progress: Progress,
    pub(crate) secrets: Secrets,
    /// Cancelled when the process stops; ends waiting claims.
    pub(crate) stop: CancellationToken,
    pub(crate) configurations: Repository<JobConfiguration, PgStore>,
    pub(crate) jobs: Repository<Job, PgStore>,
    pub(crate) budget_check: BudgetCheck,
}

impl FromRef<HttpState> for Secrets {
    fn from_ref(state: &HttpState) -> Self {
        state.secrets.clone()
    }
}
