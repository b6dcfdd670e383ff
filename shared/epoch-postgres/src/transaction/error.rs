//! Errors of a [`PgTx`](crate::PgTx).

use epoch::{ExecuteError, Version, store::StoreError};
use uuid::Uuid;

use crate::database::error::{is_conflict, is_transient};

/// The reason why the body of a transaction that executes commands, or its commit, failed. `E` is the rejection of the
/// aggregate.
///
/// An error type for [`PgStore::transaction`](crate::PgStore::transaction).
#[derive(Debug, thiserror::Error)]
pub enum TransactionError<E: std::error::Error> {
    /// A command was rejected, or its conflicts exceeded the attempts.
    #[error(transparent)]
    Execute(#[from] ExecuteError<E>),
    /// The transaction was not committed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A statement of the body failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// The reason why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// Another command changed the aggregate first. The whole transaction can be retried.
    #[error("{aggregate} {id} was changed by another command: expected version {expected}, found {actual}")]
    Conflict {
        /// The aggregate's name.
        aggregate: &'static str,
        /// The aggregate's id.
        id: Uuid,
        /// The version that the command was decided at.
        expected: Version,
        /// The aggregate's current version.
        actual: Version,
    },
    /// Another transaction committed one of its idempotent commands first. A retry returns the stored result.
    #[error("command {command_id} was committed by another transaction")]
    Repeated {
        /// The id of the command.
        command_id: Uuid,
    },
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl TxError {
    /// Returns whether another transaction was the only cause.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Repeated { .. } => true,
            Self::Sql(error) => is_conflict(error),
            Self::Store(_) => false,
        }
    }

    /// Returns whether the same transaction may succeed when it is retried.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Repeated { .. } | Self::Store(StoreError::Unavailable { .. }) => true,
            Self::Store(_) => false,
            Self::Sql(error) => is_transient(error),
        }
    }
}
