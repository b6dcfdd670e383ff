//! Reading your own writes: waiting until a subscription has applied a version.
//!
//! A read model follows the events, so a read right after a command may not show its effect. A read that names a
//! version is answered from a model that has applied it, or not at all. Only the cursor row decides; a notice within
//! this process only causes an earlier look at it.

use std::time::Duration;

use epoch::{Version, envelope::StreamKey, store::StoreError};
use sqlx::PgPool;
use tokio::{sync::watch, time::Instant};

use crate::database::{
    error::store_error,
    rows::{bigint, version},
};

/// The progress of the subscriptions of one schema.
#[derive(Clone)]
pub struct Progress {
    pool: PgPool,
    moves: watch::Sender<u64>,
}

/// How often the cursor is read while another process may move it.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// The reason why waiting for a version failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time limit was exceeded.
    #[error("{subscription} is at version {reached} of {} {}, not yet at {wanted}", stream.aggregate, stream.id)]
    NotReached {
        /// Name of the handler that lags.
        subscription: String,
        /// The aggregate.
        stream: StreamKey,
        /// The requested version.
        wanted: Version,
        /// The applied version.
        reached: Version,
    },
    /// The cursor can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Progress {
    /// Creates the progress of the schema that is first in the search path of `pool`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, moves: watch::channel(0).0 }
    }

    /// Wakes the waiting tasks of this process after a cursor has moved.
    pub(crate) fn notify(&self) {
        self.moves.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    /// Returns the version of an aggregate that a subscription has applied; zero if it has applied none.
    ///
    /// # Errors
    /// [`StoreError`] when the cursor can't be read.
    pub async fn version(&self, subscription: &str, stream: &StreamKey) -> Result<Version, StoreError> {
        let applied: Option<i64> = sqlx::query_scalar(include_str!("sql/applied_version.sql"))
            .bind(subscription)
            .bind(stream.id)
            .bind(stream.aggregate.as_ref())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| store_error(&error))?;
        applied.map_or(Ok(Version::ZERO), version)
    }

    /// Waits until `subscription` has applied the version `wanted` of an aggregate, for at most `limit`.
    ///
    /// # Errors
    /// [`WaitError::NotReached`] when the limit is exceeded.
    pub async fn wait_for(
        &self,
        subscription: &str,
        stream: &StreamKey,
        wanted: Version,
        limit: Duration,
    ) -> Result<(), WaitError> {
        let deadline = Instant::now() + limit;
        let mut moves = self.moves.subscribe();
        loop {
            moves.borrow_and_update();
            let reached = self.version(subscription, stream).await?;
            if reached >= wanted {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                let (subscription, stream) = (subscription.to_owned(), stream.clone());
                return Err(WaitError::NotReached { subscription, stream, wanted, reached });
            }
            // A move in this process wakes at once; a move in another process is seen at the next poll.
            let _ = tokio::time::timeout(POLL_INTERVAL.min(deadline - now), moves.changed()).await;
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// Converts a version into the `bigint` that SQL takes.
#[must_use]
pub fn version_number(version: Version) -> i64 {
    bigint(version.get())
}
