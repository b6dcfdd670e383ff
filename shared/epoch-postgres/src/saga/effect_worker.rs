//! Sending effects to external systems.
//!
//! A call to another system can't be part of a transaction: it may happen although the process dies before it learns
//! the answer, and it must not happen when the transaction is rolled back. An effect is therefore sent after the
//! transaction that requested it has committed, outside any transaction, at least once, each time with the same
//! idempotency key. Its answer is processed once. Effects of one instance are sent one after the other, in the order of
//! the requests: an undelivered effect delays its own instance and no other.
//!
//! A worker leases an effect, commits, sends, and then processes the answer if its lease is still current. If the
//! worker dies, the lease expires. An effect that can't be sent now is retried without limit, with growing waits; a
//! saga that wants to give up sets a timer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Metadata, Timestamp,
    retry::RetryPolicy,
    saga::{Run, Saga},
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    delivery::{error::HandlerError, guard::guarded},
    saga::{
        claim::{Claim, ClaimedInput},
        effect_outbox::{self, LeasedEffect},
        pg_saga::{INPUT_DEADLINE, POLL_INTERVAL, PgSaga},
    },
    store::pg_store::PgStore,
};

/// How long one attempt may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Waits between attempts.
const RETRY: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(200), limit: Duration::from_secs(60) };
/// How often an answer that the saga can't process is retried before the effect is parked.
const ANSWER_ATTEMPTS: i32 = 5;

/// The reason why an effect was not delivered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The other system is away or busy, or the outcome is unknown. The effect is retried.
    #[error("not now: {detail}")]
    Unavailable {
        /// The observed error.
        detail: String,
    },
    /// The other system rejects the effect permanently.
    #[error("refused: {detail}")]
    Refused {
        /// The reason of the rejection.
        detail: String,
    },
}

/// Sends effects to another system, for example by HTTP.
#[async_trait]
pub trait EffectSender<S: Saga>: Send + Sync + 'static {
    /// Sends one effect.
    ///
    /// `idempotency_key` is the same for each attempt of the same effect: the other system must execute it once and
    /// return the same answer. `origin` is the metadata of the event that the saga instance began with.
    ///
    /// # Errors
    /// [`SendError`], which decides whether the effect is retried.
    async fn send(
        &self,
        effect: &S::Effect,
        idempotency_key: Uuid,
        origin: Option<&Metadata>,
    ) -> Result<S::Answer, SendError>;
}

/// The worker that sends the effects of one saga. Any number of workers may run.
pub struct SagaEffects<S: Saga> {
    saga: Arc<PgSaga<S>>,
    store: PgStore,
    sender: Arc<dyn EffectSender<S>>,
}

impl<S: Saga> SagaEffects<S> {
    /// Creates a worker for the outbox of `saga` in the schema of `store`.
    pub fn new(saga: Arc<PgSaga<S>>, store: PgStore, sender: Arc<dyn EffectSender<S>>) -> Self {
        Self { saga, store, sender }
    }

    /// Sends effects until `stop`. Errors of the database are logged and retried.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.send_due().await {
                Ok(sent) if sent > 0 => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(saga = S::NAME, %error, "outbox can't be read"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Sends at most one batch of due effects and returns how many answers were processed. For tests and tools.
    ///
    /// # Errors
    /// [`HandlerError`] when the database can't be read or written. A failed attempt is no error here.
    pub async fn send_due(&self) -> Result<usize, HandlerError> {
        let leases = effect_outbox::lease_due(self.store.pool(), S::NAME, self.saga.clock.now()).await?;
        let mut results: FuturesUnordered<_> = leases.iter().map(|lease| self.send(lease)).collect();
        let (mut processed, mut failed) = (0, None);
        while let Some(result) = results.next().await {
            match result {
                Ok(answered) => processed += usize::from(answered),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(processed), Err)
    }

    /// Sends one effect. Returns whether an answer was processed.
    async fn send(&self, lease: &LeasedEffect) -> Result<bool, HandlerError> {
        let sent = guarded(INPUT_DEADLINE, self.attempt(lease)).await;
        let result = match sent {
            Ok(Err(SendError::Unavailable { detail })) => {
                return self.retry_later(lease, &detail).await.map(|()| false);
            }
            Ok(Ok(answer)) => guarded(INPUT_DEADLINE, self.process_answer(lease, Ok(answer))).await,
            Ok(Err(SendError::Refused { detail })) => {
                guarded(INPUT_DEADLINE, self.process_answer(lease, Err(detail))).await
            }
            Err(error) => Err(error),
        };
        match result {
            // The lease has expired, and another worker has the effect.
            Ok(false) => Ok(false),
            Ok(true) => {
                metrics::counter!("epoch_saga_effects_total", "saga" => S::NAME).increment(1);
                Ok(true)
            }
            Err(error) if error.is_transient() => self.retry_later(lease, &error.to_string()).await.map(|()| false),
            Err(error) => self.park_or_retry(lease, &error).await.map(|()| false),
        }
    }

    async fn attempt(&self, lease: &LeasedEffect) -> Result<Result<S::Answer, SendError>, HandlerError> {
        let effect: S::Effect = serde_json::from_str(&lease.effect).map_err(HandlerError::refused)?;
        let origin: Option<Metadata> =
            lease.origin.as_deref().map(serde_json::from_str).transpose().map_err(HandlerError::refused)?;
        let sending = self.sender.send(&effect, lease.id, origin.as_ref());
        Ok(tokio::time::timeout(SEND_TIMEOUT, sending).await.unwrap_or_else(|_| {
            Err(SendError::Unavailable { detail: format!("no answer within {} s", SEND_TIMEOUT.as_secs()) })
        }))
    }

    async fn process_answer(
        &self,
        lease: &LeasedEffect,
        answer: Result<S::Answer, String>,
    ) -> Result<bool, HandlerError> {
        let effect: S::Effect = serde_json::from_str(&lease.effect).map_err(HandlerError::refused)?;
        let claim = Claim::Answer { id: lease.id, attempts: lease.attempts };
        let input = |run: &mut Run<'_, S>| match &answer {
            Ok(answer) => run.delivered(lease.id, effect.clone(), answer.clone()),
            Err(reason) => run.undeliverable(lease.id, effect.clone(), reason.clone()),
        };
        let claimed = ClaimedInput { key: &lease.instance, claim, at: self.saga.clock.now() };
        self.saga.process_claim(&self.store, claimed, input).await
    }

    async fn retry_later(&self, lease: &LeasedEffect, detail: &str) -> Result<(), HandlerError> {
        tracing::debug!(
            saga = S::NAME,
            instance = lease.instance,
            attempts = lease.attempts,
            detail,
            "effect not sent"
        );
        self.return_lease(lease, detail, None).await
    }

    async fn park_or_retry(&self, lease: &LeasedEffect, error: &HandlerError) -> Result<(), HandlerError> {
        let is_last_attempt = lease.attempts >= ANSWER_ATTEMPTS;
        if is_last_attempt {
            metrics::counter!("epoch_parked_total", "subscription" => S::NAME).increment(1);
            tracing::error!(saga = S::NAME, instance = lease.instance, %error, "effect parked");
        }
        self.return_lease(lease, &error.to_string(), is_last_attempt.then(|| self.saga.clock.now())).await
    }

    async fn return_lease(
        &self,
        lease: &LeasedEffect,
        detail: &str,
        parked_at: Option<Timestamp>,
    ) -> Result<(), HandlerError> {
        let wait = RETRY.wait(u32::try_from(lease.attempts).unwrap_or(1));
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let try_at = self.saga.clock.now().as_millis().saturating_add(wait);
        Ok(effect_outbox::return_lease(self.store.pool(), lease, detail, try_at, parked_at).await?)
    }
}
