//! Firing timers that outlive processes.
//!
//! A timer in memory is lost with its process, and a timer in two processes fires twice. A timer is therefore a row.
//! Firing locks the instance and deletes the row, in the transaction that processes the timeout. The timeout takes
//! effect once, with any number of workers, and if any of them is killed. A timer may fire late, but is never lost.

use std::sync::Arc;

use epoch::{
    Timestamp,
    retry::RetryPolicy,
    saga::{Run, Saga},
};
use tokio_util::sync::CancellationToken;

use crate::{
    delivery::{error::HandlerError, guard::guarded},
    saga::{
        claim::{Claim, ClaimedInput},
        pg_saga::{INPUT_DEADLINE, POLL_INTERVAL, PgSaga},
        timer_rows::{self, DueTimer},
    },
    store::pg_store::PgStore,
};

/// The worker that fires the timers of one saga. Any number of workers may run.
pub struct SagaTimers<S: Saga> {
    saga: Arc<PgSaga<S>>,
    store: PgStore,
    retry: RetryPolicy,
}

impl<S: Saga> SagaTimers<S> {
    /// Creates a worker for the timers of `saga` in the schema of `store`.
    pub fn new(saga: Arc<PgSaga<S>>, store: PgStore) -> Self {
        Self { saga, store, retry: RetryPolicy::HANDLER }
    }

    /// Sets the attempts before a timer is parked, and the waits between them.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Fires timers until `stop`. Errors of the database are logged and retried.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let is_full_batch = match self.fire_due().await {
                Ok(fired) => fired >= usize::try_from(timer_rows::BATCH).unwrap_or(usize::MAX),
                Err(error) => {
                    tracing::warn!(saga = S::NAME, %error, "timers can't be read");
                    false
                }
            };
            if is_full_batch {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Fires at most one batch of due timers and returns how many fired. For tests and tools.
    ///
    /// # Errors
    /// [`HandlerError`] when the database can't be read. An error of the saga is stored with the timer and is no error
    /// here.
    pub async fn fire_due(&self) -> Result<usize, HandlerError> {
        let due = timer_rows::due(self.store.pool(), S::NAME, self.saga.clock.now()).await?;
        let mut fired = 0;
        for timer in &due {
            match guarded(INPUT_DEADLINE, self.fire(timer)).await {
                Ok(taken) => fired += usize::from(taken),
                // The timer stays due, and the next round fires it.
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => self.retry_or_park(timer, &error).await?,
            }
        }
        if fired > 0 {
            metrics::counter!("epoch_saga_timers_total", "saga" => S::NAME).increment(fired as u64);
        }
        Ok(fired)
    }

    async fn fire(&self, due: &DueTimer) -> Result<bool, HandlerError> {
        let timer: S::Timer = serde_json::from_str(&due.timer).map_err(HandlerError::refused)?;
        let claim = Claim::Timer { id: due.id };
        let input = |run: &mut Run<'_, S>| run.timed_out(timer.clone());
        let claimed = ClaimedInput { key: &due.instance, claim, at: Timestamp::from_millis(due.due_at) };
        self.saga.process_claim(&self.store, claimed, input).await
    }

    async fn retry_or_park(&self, due: &DueTimer, error: &HandlerError) -> Result<(), HandlerError> {
        let now = self.saga.clock.now();
        let attempts = u32::try_from(due.attempts).unwrap_or(0) + 1;
        let is_last_attempt = attempts >= self.retry.attempts;
        let wait = i64::try_from(self.retry.wait(attempts).as_millis()).unwrap_or(i64::MAX);
        let try_at = now.as_millis().saturating_add(wait);
        let parked_at = is_last_attempt.then_some(now);
        timer_rows::record_failure(self.store.pool(), due.id, &error.to_string(), try_at, parked_at).await?;
        if is_last_attempt {
            metrics::counter!("epoch_parked_total", "subscription" => S::NAME).increment(1);
            tracing::error!(saga = S::NAME, instance = due.instance, timer = due.timer, %error, "timer parked");
        }
        Ok(())
    }
}
