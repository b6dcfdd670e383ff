//! Timers that outlive processes.
//!
//! The problem: a reminder in memory is gone with the process, and one that two processes give counts twice.
//!
//! The invariant: a timer is a row. Being reminded deletes it in the transaction that takes the time-out, with the
//! instance locked before; so it has its effect once, however many workers find it due and wherever one of them is
//! killed. It is found late rather than never.

use std::sync::Arc;

use epoch::{
    Timestamp,
    retry::RetryPolicy,
    saga::{Run, Saga},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pg_saga::{Claim, POLL, PgSaga, guarded};
use crate::{delivery::handler::HandlerError, store::pg_store::PgStore};

const SET: &str = "insert into saga_timers (id, saga, instance, timer, due_at, try_at) values ($1, $2, $3, $4, $5, $5) \
     on conflict (saga, instance, timer) do update set id = $1, due_at = $5, try_at = $5, attempts = 0, error = null, \
     parked_at = null";

const DUE: &str = "select id, instance, timer, due_at, attempts from saga_timers \
     where saga = $1 and try_at <= $2 and parked_at is null order by try_at limit $3";

const FAILED: &str =
    "update saga_timers set attempts = attempts + 1, error = $2, try_at = $3, parked_at = $4 where id = $1";

/// Timers looked for at once.
const BATCH: i64 = 200;

/// Keeps a timer, instead of the one of the same value.
pub(super) async fn set<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    id: Uuid,
    timer: &S::Timer,
    at: Timestamp,
) -> Result<(), HandlerError> {
    let timer = serde_json::to_string(timer).map_err(HandlerError::refused)?;
    let query = sqlx::query(SET).bind(id).bind(S::NAME).bind(key).bind(timer).bind(at.as_millis());
    query.execute(connection).await?;
    Ok(())
}

/// Drops a timer, if it is there.
pub(super) async fn cancel<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    timer: &S::Timer,
) -> Result<(), HandlerError> {
    let timer = serde_json::to_string(timer).map_err(HandlerError::refused)?;
    let query = "delete from saga_timers where saga = $1 and instance = $2 and timer = $3";
    sqlx::query(query).bind(S::NAME).bind(key).bind(timer).execute(connection).await?;
    Ok(())
}

/// Drops all timers of an instance.
pub(super) async fn cancel_all<S: Saga>(connection: &mut PgConnection, key: &str) -> Result<(), HandlerError> {
    let query = "delete from saga_timers where saga = $1 and instance = $2";
    sqlx::query(query).bind(S::NAME).bind(key).execute(connection).await?;
    Ok(())
}

/// Reminds the instances of one saga; any number of workers may run.
pub struct SagaTimers<S: Saga> {
    saga: Arc<PgSaga<S>>,
    store: PgStore,
    retry: RetryPolicy,
}

struct Due {
    id: Uuid,
    instance: String,
    timer: String,
    due_at: Timestamp,
    attempts: u32,
}

impl Due {
    fn read(row: &PgRow) -> Result<Self, HandlerError> {
        let attempts: i32 = row.try_get(4)?;
        Ok(Self {
            id: row.try_get(0)?,
            instance: row.try_get(1)?,
            timer: row.try_get(2)?,
            due_at: Timestamp::from_millis(row.try_get(3)?),
            attempts: u32::try_from(attempts).unwrap_or(0),
        })
    }
}

impl<S: Saga> SagaTimers<S> {
    /// Timers of `saga` in `store`'s schema.
    pub fn new(saga: Arc<PgSaga<S>>, store: PgStore) -> Self {
        Self { saga, store, retry: RetryPolicy::HANDLER }
    }

    /// The same with another number of attempts before a timer is parked, and other waits.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Reminds until `stop`; faults of the database are waited out.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let full = match self.fire_due().await {
                Ok(found) => found >= usize::try_from(BATCH).unwrap_or(usize::MAX),
                Err(error) => {
                    tracing::warn!(saga = S::NAME, %error, "timers can't be read");
                    false
                }
            };
            if full {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Reminds of what is due now, at most one batch; gives how many timers were taken from the table. For tests and
    /// tools.
    ///
    /// # Errors
    /// [`HandlerError`] when the database can't be read. What a saga makes of a time-out is no error here.
    pub async fn fire_due(&self) -> Result<usize, HandlerError> {
        let now = self.saga.clock.now();
        let query = sqlx::query(DUE).bind(S::NAME).bind(now.as_millis()).bind(BATCH);
        let rows = query.fetch_all(self.store.pool()).await?;
        let mut fired = 0;
        for row in &rows {
            let due = Due::read(row)?;
            match guarded(self.fire(&due)).await {
                Ok(taken) => fired += usize::from(taken),
                // Found again in the next round.
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => self.failed(&due, &error).await?,
            }
        }
        if fired > 0 {
            metrics::counter!("epoch_saga_timers_total", "saga" => S::NAME).increment(fired as u64);
        }
        Ok(fired)
    }

    async fn fire(&self, due: &Due) -> Result<bool, HandlerError> {
        let timer: S::Timer = serde_json::from_str(&due.timer).map_err(HandlerError::refused)?;
        let claim = Claim::Timer { id: due.id };
        let input = |run: &mut Run<'_, S>| run.timed_out(timer.clone());
        self.saga.take_alone(&self.store, &due.instance, claim, due.due_at, input).await
    }

    async fn failed(&self, due: &Due, error: &HandlerError) -> Result<(), HandlerError> {
        let now = self.saga.clock.now();
        let attempts = due.attempts + 1;
        let parked = attempts >= self.retry.attempts;
        let wait = i64::try_from(self.retry.wait(attempts).as_millis()).unwrap_or(i64::MAX);
        sqlx::query(FAILED)
            .bind(due.id)
            .bind(error.to_string())
            .bind(now.as_millis().saturating_add(wait))
            .bind(parked.then_some(now.as_millis()))
            .execute(self.store.pool())
            .await?;
        if parked {
            metrics::counter!("epoch_parked_total", "subscription" => S::NAME).increment(1);
            tracing::error!(saga = S::NAME, instance = due.instance, timer = due.timer, %error, "timer parked");
        }
        Ok(())
    }
}
