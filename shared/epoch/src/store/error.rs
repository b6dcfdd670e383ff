//! Errors of stores.

use crate::event::CodecError;

/// Why a store operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store is unreachable or overloaded. Whether an append was committed is unknown; repeat the command.
    #[error("event store is unavailable: {detail}")]
    Unavailable {
        /// The cause.
        detail: String,
    },
    /// An event could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Stored or supplied data violates an invariant of the store.
    #[error("event store refused: {detail}")]
    Refused {
        /// The cause.
        detail: String,
    },
}
