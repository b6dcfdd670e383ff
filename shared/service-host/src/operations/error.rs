//! How operations fail.
//!
//! The problem: a script must tell "come again later" from "there is no such thing". The invariant: each kind of failure has an
//! exit code of its own, the same for all operations.

use epoch::{event::CodecError, handler::DeliverError, store::StoreError};
use epoch_postgres::{HandlerError, RebuildError};

use crate::service::ServiceError;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The service can't be put together.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// There is no such subscription.
    #[error("there is no subscription {name}; there are: {known}")]
    NoSubscription {
        /// What was asked for.
        name: String,
        /// All of them.
        known: String,
    },
    /// The service has no such aggregate.
    #[error("there is no aggregate {name} here; there are: {known}")]
    NoAggregate {
        /// What was asked for.
        name: String,
        /// All of them.
        known: String,
    },
    /// Nothing like it was found.
    #[error("there is nothing: {what}")]
    Nothing {
        /// What was looked for.
        what: String,
    },
    /// An event can't be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The handler still can't take an event.
    #[error("the aggregate stays parked: {0}")]
    Handler(#[from] HandlerError),
    /// The gate took nothing.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// A projection was not rebuilt.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The output can't be written.
    #[error("can't write: {0}")]
    Output(#[from] std::io::Error),
}

impl OperateError {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::NoSubscription { .. } | Self::NoAggregate { .. } | Self::Nothing { .. } => 3,
            Self::Handler(error) if !error.is_transient() => 4,
            Self::Rebuild(RebuildError::Store(_) | RebuildError::Deliver(_) | RebuildError::Stopped) => 1,
            Self::Rebuild(_) => 4,
            _ => 1,
        }
    }
}
