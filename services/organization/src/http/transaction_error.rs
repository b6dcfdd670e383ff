//! Errors of a transaction that a request runs.

use epoch::ExecuteError;
use epoch_postgres::TxError;
use http_kit::Problem;

use crate::domain::OrganizationError;

/// Reason for which a request's transaction was rolled back.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransactionError {
    /// The command was rejected, or its conflicts exceeded the attempts.
    #[error(transparent)]
    Execute(#[from] ExecuteError<OrganizationError>),
    /// The transaction was retried too often, or the store failed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// A statement of the caller's own failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl From<TransactionError> for Problem {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Execute(error) => error.into(),
            TransactionError::Tx(error) => error.into(),
            TransactionError::Sql(error) => error.into(),
        }
    }
}
