//! Why a request's transaction was not committed.

use epoch::ExecuteError;
use epoch_postgres::TxError;
use service_kit::Problem;

use crate::domain::OrganizationError;

/// Why a request's transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command was not accepted.
    #[error(transparent)]
    Execute(#[from] ExecuteError<OrganizationError>),
    /// The transaction lost too many races, or the store gave no answer.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The database gave no answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Execute(error) => error.into(),
            Failure::Tx(error) => error.into(),
            Failure::Sql(error) => error.into(),
        }
    }
}
