//! Errors of handlers.

use epoch::{ExecuteError, event::CodecError, store::StoreError};

use crate::{
    database::error::{is_conflict, is_transient},
    transaction::error::TxError,
};

/// The reason why a handler did not apply a batch.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The database failed or rejected a statement.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// An event can't be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transaction had a conflict or could not be committed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// An aggregate rejected the handler's command, or the handler rejected the event.
    #[error("{detail}")]
    Refused {
        /// The reason of the rejection.
        detail: String,
    },
    /// The handler panicked.
    #[error("handler panicked: {detail}")]
    Panicked {
        /// The panic message.
        detail: String,
    },
    /// The serving tables were built by another revision of the handler. Delivery continues after the rebuild, or in a
    /// process with that revision.
    #[error("the serving tables have revision {serving} of the handler, but this process has revision {own}")]
    OtherRevision {
        /// The revision of the serving tables.
        serving: i64,
        /// The revision of this process's handler.
        own: i64,
    },
    /// The handler wrote tables that it does not declare. Every event would fail, so none is parked. Delivery continues
    /// once the handler is corrected.
    #[error("the handler wrote {tables} without declaring them in tables() or also_writes()")]
    Undeclared {
        /// The tables, with their schemas.
        tables: String,
    },
    /// The handler exceeded its deadline.
    #[error("handler took longer than {seconds} s")]
    TimedOut {
        /// The deadline in seconds.
        seconds: u64,
    },
}

impl HandlerError {
    /// Creates a [`HandlerError::Refused`].
    pub fn refused(detail: impl std::fmt::Display) -> Self {
        Self::Refused { detail: detail.to_string() }
    }

    /// Returns whether another transaction was the only cause.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Sql(error) => is_conflict(error),
            Self::Tx(error) => error.is_conflict(),
            _ => false,
        }
    }

    /// Returns whether the cause is outside the event: the server is away, another transaction interfered, or the
    /// handler itself must be rebuilt or corrected. Such an error parks no aggregate.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sql(error) => is_transient(error),
            Self::Tx(error) => error.is_transient(),
            Self::Store(StoreError::Unavailable { .. }) | Self::OtherRevision { .. } | Self::Undeclared { .. } => true,
            Self::Store(_) | Self::Codec(_) | Self::Refused { .. } | Self::Panicked { .. } | Self::TimedOut { .. } => {
                false
            }
        }
    }
}

impl<E: std::error::Error> From<ExecuteError<E>> for HandlerError {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Store(error) => Self::Store(error),
            other => Self::refused(other),
        }
    }
}
