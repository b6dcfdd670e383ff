//! Effects on others.
//!
//! The problem: a call to another service can't be part of a transaction; it may happen though the process dies before
//! it knows, and it must not happen when the transaction that wanted it is undone.
//!
//! The invariant: an effect is sent after the transaction that asked for it has committed, outside any transaction, at
//! least once, each time with the same idempotency key; its answer is taken once. Effects of one instance are sent one
//! after the other in the order they were asked for: what isn't delivered holds back that instance, and no other.
//!
//! A worker takes an effect on loan: it puts off the next attempt, commits, sends, and then takes the answer if the
//! loan is still its own. One that dies leaves a loan that runs out. An effect that can't be sent now is tried again
//! for as long as it takes, with longer waits; a saga that doesn't want to wait sets a timer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Timestamp,
    context::Metadata,
    retry::RetryPolicy,
    saga::{Run, Saga},
};
use futures::{StreamExt, stream::FuturesUnordered};
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pg_saga::{Claim, POLL, PgSaga, guarded};
use crate::{delivery::handler::HandlerError, store::pg_store::PgStore};

const PUT: &str = "insert into saga_effects (id, saga, instance, effect, try_at) values ($1, $2, $3, $4, $5)";

const BORROW: &str = "update saga_effects set attempts = attempts + 1, try_at = $3 where number = any(array( \
     select e.number from saga_effects e where e.saga = $1 and e.try_at <= $2 and e.parked_at is null \
     and not exists (select from saga_effects b \
         where b.saga = e.saga and b.instance = e.instance and b.number < e.number) \
     order by e.try_at limit $4 for update skip locked)) \
     returning number, id, instance, effect, attempts, \
     (select s.origin::text from sagas s where s.saga = saga_effects.saga and s.instance = saga_effects.instance)";

const AGAIN: &str =
    "update saga_effects set try_at = $3, error = $4, parked_at = $5 where number = $1 and attempts = $2";

/// Effects sent at once.
const BATCH: i64 = 16;
/// How long one attempt may take.
const SEND_DEADLINE: Duration = Duration::from_secs(20);
/// How long an effect is on loan: longer than an attempt and taking its answer can take.
const LOAN_MILLIS: i64 = 60_000;
/// Waits between attempts.
const RETRY: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(200), limit: Duration::from_secs(60) };
/// How often an answer that the saga can't take is tried before it is parked.
const ANSWER_ATTEMPTS: i32 = 5;

/// Why an effect did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The other side is away or busy, or what became of it isn't known: try again.
    #[error("not now: {detail}")]
    Unavailable {
        /// What was seen.
        detail: String,
    },
    /// The other side says no, and always will.
    #[error("refused: {detail}")]
    Refused {
        /// Why.
        detail: String,
    },
}

/// Has effects on others, as by HTTP.
#[async_trait]
pub trait EffectSender<S: Saga>: Send + Sync + 'static {
    /// Has one effect. `idempotency_key` is the same each time the same effect is tried: the other side must do it once
    /// and give the same answer. `origin` is the metadata of the event the process began with.
    ///
    /// # Errors
    /// [`SendError`] says whether to try again.
    async fn send(
        &self,
        effect: &S::Effect,
        idempotency_key: Uuid,
        origin: Option<&Metadata>,
    ) -> Result<S::Answer, SendError>;
}

/// Puts an effect into the outbox.
pub(super) async fn put<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    id: Uuid,
    effect: &S::Effect,
    now: Timestamp,
) -> Result<(), HandlerError> {
    let effect = serde_json::to_string(effect).map_err(HandlerError::refused)?;
    sqlx::query(PUT).bind(id).bind(S::NAME).bind(key).bind(effect).bind(now.as_millis()).execute(connection).await?;
    Ok(())
}

/// Sends the effects of one saga; any number of workers may run.
pub struct SagaEffects<S: Saga> {
    saga: Arc<PgSaga<S>>,
    store: PgStore,
    sender: Arc<dyn EffectSender<S>>,
}

/// An effect on loan.
struct Loan {
    number: i64,
    id: Uuid,
    instance: String,
    effect: String,
    attempts: i32,
    origin: Option<String>,
}

impl Loan {
    fn read(row: &PgRow) -> Result<Self, HandlerError> {
        Ok(Self {
            number: row.try_get(0)?,
            id: row.try_get(1)?,
            instance: row.try_get(2)?,
            effect: row.try_get(3)?,
            attempts: row.try_get(4)?,
            origin: row.try_get(5)?,
        })
    }
}

impl<S: Saga> SagaEffects<S> {
    /// The outbox of `saga` in `store`'s schema, emptied by `sender`.
    pub fn new(saga: Arc<PgSaga<S>>, store: PgStore, sender: Arc<dyn EffectSender<S>>) -> Self {
        Self { saga, store, sender }
    }

    /// Sends until `stop`; faults of the database are waited out.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.send_due().await {
                Ok(sent) if sent > 0 => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(saga = S::NAME, %error, "outbox can't be read"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Sends what is due now, at most one batch; gives how many answers were taken. For tests and tools.
    ///
    /// # Errors
    /// [`HandlerError`] when the database can't be read or written. What the other side says is no error here.
    pub async fn send_due(&self) -> Result<usize, HandlerError> {
        let now = self.saga.clock.now().as_millis();
        let query = sqlx::query(BORROW).bind(S::NAME).bind(now).bind(now.saturating_add(LOAN_MILLIS)).bind(BATCH);
        let rows = query.fetch_all(self.store.pool()).await?;
        let loans = rows.iter().map(Loan::read).collect::<Result<Vec<_>, _>>()?;
        let mut results: FuturesUnordered<_> = FuturesUnordered::new();
        for loan in &loans {
            results.push(self.send(loan));
        }
        let (mut taken, mut failed) = (0, None);
        while let Some(result) = results.next().await {
            match result {
                Ok(answered) => taken += usize::from(answered),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(taken), Err)
    }

    /// Sends one effect and takes its answer; whether it was taken.
    async fn send(&self, loan: &Loan) -> Result<bool, HandlerError> {
        let answer = guarded(self.ask(loan)).await;
        let result = match answer {
            Ok(Err(SendError::Unavailable { detail })) => return self.again(loan, &detail).await.map(|()| false),
            Ok(Ok(answer)) => guarded(self.take(loan, Ok(answer))).await,
            Ok(Err(SendError::Refused { detail })) => guarded(self.take(loan, Err(detail))).await,
            Err(error) => Err(error),
        };
        match result {
            // The loan had run out and another worker has it.
            Ok(false) => Ok(false),
            Ok(true) => {
                metrics::counter!("epoch_saga_effects_total", "saga" => S::NAME).increment(1);
                Ok(true)
            }
            Err(error) if error.is_transient() => self.again(loan, &error.to_string()).await.map(|()| false),
            Err(error) => self.park_or_again(loan, &error).await.map(|()| false),
        }
    }

    async fn ask(&self, loan: &Loan) -> Result<Result<S::Answer, SendError>, HandlerError> {
        let effect: S::Effect = serde_json::from_str(&loan.effect).map_err(HandlerError::refused)?;
        let origin: Option<Metadata> =
            loan.origin.as_deref().map(serde_json::from_str).transpose().map_err(HandlerError::refused)?;
        let sending = self.sender.send(&effect, loan.id, origin.as_ref());
        Ok(tokio::time::timeout(SEND_DEADLINE, sending).await.unwrap_or_else(|_| {
            Err(SendError::Unavailable { detail: format!("no answer in {} s", SEND_DEADLINE.as_secs()) })
        }))
    }

    async fn take(&self, loan: &Loan, answer: Result<S::Answer, String>) -> Result<bool, HandlerError> {
        let effect: S::Effect = serde_json::from_str(&loan.effect).map_err(HandlerError::refused)?;
        let claim = Claim::Answer { id: loan.id, attempts: loan.attempts };
        let input = |run: &mut Run<'_, S>| match &answer {
            Ok(answer) => run.delivered(loan.id, effect.clone(), answer.clone()),
            Err(reason) => run.undeliverable(loan.id, effect.clone(), reason.clone()),
        };
        self.saga.take_alone(&self.store, &loan.instance, claim, self.saga.clock.now(), input).await
    }

    async fn again(&self, loan: &Loan, detail: &str) -> Result<(), HandlerError> {
        tracing::debug!(saga = S::NAME, instance = loan.instance, attempts = loan.attempts, detail, "effect not sent");
        self.give_back(loan, detail, None).await
    }

    async fn park_or_again(&self, loan: &Loan, error: &HandlerError) -> Result<(), HandlerError> {
        let parked = loan.attempts >= ANSWER_ATTEMPTS;
        if parked {
            metrics::counter!("epoch_parked_total", "subscription" => S::NAME).increment(1);
            tracing::error!(saga = S::NAME, instance = loan.instance, %error, "effect parked");
        }
        self.give_back(loan, &error.to_string(), parked.then(|| self.saga.clock.now())).await
    }

    async fn give_back(&self, loan: &Loan, detail: &str, parked: Option<Timestamp>) -> Result<(), HandlerError> {
        let wait = RETRY.wait(u32::try_from(loan.attempts).unwrap_or(1));
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        sqlx::query(AGAIN)
            .bind(loan.number)
            .bind(loan.attempts)
            .bind(self.saga.clock.now().as_millis().saturating_add(wait))
            .bind(detail)
            .bind(parked.map(Timestamp::as_millis))
            .execute(self.store.pool())
            .await?;
        Ok(())
    }
}
