//! Claiming an input that is a row: a due timer, or an effect with an answer.

use epoch::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::delivery::error::HandlerError;

/// An input that is processed by deleting its row.
#[derive(Clone, Copy)]
pub(super) enum Claim {
    Timer {
        id: Uuid,
    },
    /// The answer to a leased effect. `attempts` identifies the lease.
    Answer {
        id: Uuid,
        attempts: i32,
    },
}

impl Claim {
    pub(super) fn id(self) -> Uuid {
        match self {
            Self::Timer { id } | Self::Answer { id, .. } => id,
        }
    }

    /// Deletes the row. Returns `false` when it was deleted or changed since it was read.
    pub(super) async fn take(self, connection: &mut PgConnection) -> Result<bool, HandlerError> {
        let query = match self {
            // A timer that was set again has a new id.
            Self::Timer { id } => sqlx::query("delete from saga_timers where id = $1").bind(id),
            Self::Answer { id, attempts } => {
                sqlx::query("delete from saga_effects where id = $1 and attempts = $2").bind(id).bind(attempts)
            }
        };
        Ok(query.execute(connection).await?.rows_affected() == 1)
    }
}

/// A claimed input of a saga instance.
#[derive(Clone, Copy)]
pub(super) struct ClaimedInput<'a> {
    /// The key of the instance.
    pub(super) key: &'a str,
    pub(super) claim: Claim,
    /// When the input occurred.
    pub(super) at: Timestamp,
}
