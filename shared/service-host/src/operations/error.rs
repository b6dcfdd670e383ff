//! Errors of operations, each with an exit code that scripts can rely on.

use epoch::{event::CodecError, handler::DeliverError, store::StoreError};
use epoch_postgres::{HandlerError, RebuildError};

use crate::service::ServiceError;

#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("subscription {name} does not exist; subscriptions: {known}")]
    NoSubscription { name: String, known: String },
    #[error("aggregate {name} does not exist in this service; aggregates: {known}")]
    NoAggregate { name: String, known: String },
    #[error("{detail}")]
    NotFound { detail: String },
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The handler failed again.
    #[error("aggregate stays parked: {0}")]
    Handler(#[from] HandlerError),
    /// The delivery gate is not available.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("failed to write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl OperationError {
    /// Returns the exit code of the process.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::NoSubscription { .. } | Self::NoAggregate { .. } | Self::NotFound { .. } => 3,
            Self::Handler(error) if !error.is_transient() => 4,
            Self::Rebuild(RebuildError::Store(_) | RebuildError::Deliver(_) | RebuildError::Stopped) => 1,
            Self::Rebuild(_) => 4,
            _ => 1,
        }
    }
}
