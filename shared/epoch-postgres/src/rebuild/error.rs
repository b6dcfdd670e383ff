//! Errors of rebuilds.

use epoch::{envelope::StreamKey, handler::DeliverError, store::StoreError};

use crate::database::error::store_error;

/// The reason why a projection was not rebuilt.
///
/// A retry helps only after [`Stopped`](RebuildError::Stopped) and [`Store`](RebuildError::Store).
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The handler declares no tables as its own.
    #[error("{subscription} declares no tables of its own to rebuild")]
    NoTables {
        /// Name of the handler to rebuild.
        subscription: String,
    },
    /// The handler also writes tables that a rebuild can't build.
    #[error("{subscription} also writes {tables}; a rebuild would write their rows a second time")]
    Shared {
        /// Name of the handler to rebuild.
        subscription: String,
        /// The other tables.
        tables: String,
    },
    /// The handler wrote tables that it does not declare. Those writes were rolled back.
    #[error("{subscription} writes {tables} without declaring them; a rebuild would write their rows a second time")]
    Undeclared {
        /// Name of the handler to rebuild.
        subscription: String,
        /// The undeclared tables.
        tables: String,
    },
    /// Another process rebuilds the subscription.
    #[error("{subscription} is being rebuilt by another process")]
    Busy {
        /// Name of the handler to rebuild.
        subscription: String,
    },
    /// The tables can't be replaced.
    #[error("tables of {subscription} can't be rebuilt: {detail}")]
    Tables {
        /// Name of the handler to rebuild.
        subscription: String,
        /// The obstacle.
        detail: String,
    },
    /// The new generation can't apply events that the serving generation has applied.
    #[error(
        "{aggregates} aggregates are parked in {generation}, the first is {} {}; see its dead letters",
        first.aggregate, first.id
    )]
    Parked {
        /// The key of the new generation's dead letters.
        generation: String,
        /// The number of parked aggregates.
        aggregates: u64,
        /// One of them.
        first: StreamKey,
    },
    /// Events that the serving generation has applied are no longer delivered.
    #[error(
        "rebuild stalled: {} {} is at version {reached}, the serving generation at {wanted}",
        stream.aggregate, stream.id
    )]
    Stalled {
        /// The aggregate.
        stream: StreamKey,
        /// Its version in the new generation.
        reached: u64,
        /// Its version in the serving generation.
        wanted: u64,
    },
    /// The rebuild was stopped. The next rebuild resumes it.
    #[error("stopped; the next rebuild resumes here")]
    Stopped,
    /// A batch could not be delivered.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(store_error(&error))
    }
}

/// Converts an error of `epoch_clone_tables` or `epoch_swap_tables`; a refusal of the tables is
/// [`RebuildError::Tables`].
pub(super) fn tables_error(subscription: &str, error: sqlx::Error) -> RebuildError {
    /// Raised by `epoch_clone_tables` for tables that can't be swapped.
    const REFUSED: &str = "EP002";
    match error.as_database_error() {
        Some(refused) if refused.code().is_some_and(|code| code == REFUSED) => {
            RebuildError::Tables { subscription: subscription.to_owned(), detail: refused.message().to_owned() }
        }
        _ => error.into(),
    }
}
