//! Errors of transactions that change a job and its lease together.

use epoch::{ExecuteError, store::StoreError};
use epoch_postgres::TxError;

use crate::domain::job::JobError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TransactionError {
    /// The job command was rejected or failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError<JobError>),
    /// The transaction was not committed.
    #[error(transparent)]
    Tx(#[from] TxError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl TransactionError {
    /// Returns whether another claim changed the job first: the job rejected the command, or every retry met a conflict.
    pub(crate) fn is_conflict(&self) -> bool {
        let contended = matches!(self, Self::Tx(error) if error.is_conflict());
        contended || matches!(self, Self::Execute(ExecuteError::Rejected(_) | ExecuteError::Conflict { .. }))
    }
}
