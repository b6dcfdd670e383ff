//! Projections and sagas on Postgres.
//!
//! The problem: a handler must be able to touch any tables and to command aggregates of its service, and all of it must
//! commit with its cursor. The invariant: it gets the gate's own transaction, and nothing else to write with.

use epoch::{ExecuteError, event::CodecError, handler::EventHandler, store::StoreError};

use crate::{
    database::error::{is_race, is_transient},
    transaction::pg_tx::{PgTx, TxError},
};

/// What [`PgSubscription`](crate::PgSubscription) takes: any [`EventHandler`] over a [`PgTx`].
pub trait PgHandler: EventHandler<PgTx, Error = HandlerError> {}

impl<H: EventHandler<PgTx, Error = HandlerError>> PgHandler for H {}

/// Why a handler didn't take a batch.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The database said no or gave no answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// An event can't be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The event store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transaction lost a race or could not be committed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// An aggregate refused the handler's command, or the event makes no sense to it.
    #[error("{detail}")]
    Refused {
        /// Why.
        detail: String,
    },
    /// It panicked.
    #[error("handler panicked: {detail}")]
    Panicked {
        /// What it said.
        detail: String,
    },
    /// The tables in use were made by another revision of the handler; it goes on after the rebuild, or in a process that has
    /// that revision.
    #[error("the tables in use were made by revision {serving} of the handler, this is revision {own}")]
    OtherRevision {
        /// The revision whose tables are in use.
        serving: i64,
        /// The revision of this process's handler.
        own: i64,
    },
    /// It wrote tables that it doesn't name. No event is to blame, so none is parked: it goes on when the handler is mended.
    #[error("the handler wrote {tables} without naming them as its tables or as what it also writes")]
    Undeclared {
        /// Which, with their schemas.
        tables: String,
    },
    /// It took too long.
    #[error("handler took longer than {seconds} s")]
    TimedOut {
        /// Its deadline in seconds.
        seconds: u64,
    },
}

impl HandlerError {
    /// A refusal.
    pub fn refused(detail: impl std::fmt::Display) -> Self {
        Self::Refused { detail: detail.to_string() }
    }

    /// Whether the transaction only lost a race against another one.
    #[must_use]
    pub fn is_race(&self) -> bool {
        match self {
            Self::Sql(error) => is_race(error),
            Self::Tx(error) => error.is_race(),
            _ => false,
        }
    }

    /// Whether the cause lies outside and passes by itself: the server is away, or another transaction was in the way.
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
