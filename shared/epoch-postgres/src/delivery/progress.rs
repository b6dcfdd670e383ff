//! Reading your own writes.
//!
//! The problem: a read model follows the events, so a read right after a command may not show it.
//!
//! The invariant: a read that names a version is answered from a model that has reached it, or not at all. The cursor row
//! decides; what this process knows only says when to look again.

use std::time::Duration;

use epoch::{Version, envelope::StreamKey, store::StoreError};
use sqlx::{PgPool, Row};
use tokio::{sync::watch, time::Instant};

use crate::{
    database::error::store_error,
    database::rows::{count, number},
};

/// How far the subscriptions of one schema are.
#[derive(Clone)]
pub struct Progress {
    pool: PgPool,
    moves: watch::Sender<u64>,
}

/// How often to look when another process moves the cursor.
const POLL: Duration = Duration::from_millis(25);

/// Why a version was not waited for to the end.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time was up.
    #[error("{subscription} is at version {reached} of {} {}, not yet at {wanted}", stream.aggregate, stream.id)]
    NotReached {
        /// Whose cursor.
        subscription: String,
        /// The aggregate.
        stream: StreamKey,
        /// The version asked for.
        wanted: Version,
        /// The version it is at.
        reached: Version,
    },
    /// The cursor can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Progress {
    /// Follows the cursors that `pool` sees.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, moves: watch::channel(0).0 }
    }

    /// Says that cursors have moved in this process.
    pub(crate) fn moved(&self) {
        self.moves.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    /// The version of an aggregate that a subscription has applied.
    ///
    /// # Errors
    /// [`StoreError`] when the cursor can't be read.
    pub async fn version(&self, subscription: &str, stream: &StreamKey) -> Result<Version, StoreError> {
        let query = "select version from cursors where subscription = coalesce((select key from generations \
             where subscription = $1 and state = 'serving'), $1) and aggregate_id = $2 and aggregate = $3";
        let row = sqlx::query(query)
            .bind(subscription)
            .bind(stream.id)
            .bind(stream.aggregate.as_ref())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| store_error(&error))?;
        let Some(row) = row else { return Ok(Version::ZERO) };
        let version: i64 = row.try_get(0).map_err(|error| store_error(&error))?;
        Ok(Version::new(count(version)?))
    }

    /// Waits until `subscription` has applied `wanted` of an aggregate, for at most `limit`.
    ///
    /// # Errors
    /// [`WaitError::NotReached`] when it hasn't by then.
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
            // A move in this process wakes at once; another process's is seen at the next look.
            let _ = tokio::time::timeout(POLL.min(deadline - now), moves.changed()).await;
        }
    }

    /// The connections.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// A version as SQL takes it.
#[must_use]
pub fn version_number(version: Version) -> i64 {
    number(version.get())
}
