//! Why a transaction over jobs and leases has no result.

use epoch::{ExecuteError, store::StoreError};
use epoch_postgres::TxError;

use crate::domain::job::JobError;

/// Why a transaction over jobs and leases has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The job's command has none.
    #[error(transparent)]
    Execute(#[from] ExecuteError<JobError>),
    /// The transaction was not committed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The event store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database gave no answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl Failure {
    /// Whether the job refused, or somebody else was faster each time.
    pub(crate) fn is_lost_race(&self) -> bool {
        let contended = matches!(self, Self::Tx(error) if error.is_race());
        contended || matches!(self, Self::Execute(ExecuteError::Rejected(_) | ExecuteError::Conflict { .. }))
    }
}
