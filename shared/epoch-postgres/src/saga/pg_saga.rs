//! Sagas on Postgres.
//!
//! The problem and the rules are those of [`epoch::saga`]. The invariants kept here:
//! - an input (an event, a timer, the answer to an effect), the instance's new state, its timers, its outbox and the
//!   events of the aggregates it commands commit together or not at all, each input once: an event by the gate's
//!   cursor, a timer and an answer by deleting their row;
//! - inputs of one instance are taken one after the other, from however many processes: each locks the instance's row
//!   first;
//! - effects start only in [`SagaEffects`], which finds them committed. The handler has no means to start one: what
//!   sends is given to the worker and not to it. So it may well run on the local way.
//!
//! A refusal by an aggregate is an input; an error of the saga itself, or a command that can't be executed for another
//! reason, parks what caused it: an event as a dead letter with its aggregate, a timer or an answer in its own row
//! ([`release`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, ExecuteError, Executed, Timestamp,
    clock::{Clock, SystemClock},
    context::Metadata,
    handler::EventHandler,
    retry::RetryPolicy,
    saga::{Run, RunError, Saga, Work},
    store::StoreError,
};
use futures::FutureExt;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{
    effects,
    instances::{self, Held},
    timers,
};
use crate::{
    database::error::store_error, delivery::handler::HandlerError, store::pg_store::PgStore, transaction::pg_tx::PgTx,
};

/// The longest key of an instance, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// How long an input that isn't an event may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often workers look for what is due.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// What an aggregate made of a saga's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commanded<R> {
    /// It obeyed, or had nothing to do.
    Done,
    /// It refused.
    Refused(R),
}

impl<R> Commanded<R> {
    /// From what [`PgTx::execute`] says; `refusal` makes the saga's word from the aggregate's.
    ///
    /// # Errors
    /// Everything but a refusal.
    pub fn from_executed<E: std::error::Error>(
        executed: Result<Executed, ExecuteError<E>>,
        refusal: impl FnOnce(E) -> R,
    ) -> Result<Self, HandlerError> {
        match executed {
            Ok(_) => Ok(Self::Done),
            Err(ExecuteError::Rejected(error)) => Ok(Self::Refused(refusal(error))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Executes a saga's commands, each on the aggregate it is for.
#[async_trait]
pub trait SagaCommands<S: Saga>: Send + Sync + 'static {
    /// Executes by [`PgTx::execute`] in the transaction given, and nothing outside it.
    ///
    /// # Errors
    /// [`HandlerError`] when it is neither done nor refused.
    async fn execute(
        &self,
        tx: &mut PgTx,
        command: &S::Command,
        context: &CommandContext,
    ) -> Result<Commanded<S::Refusal>, HandlerError>;
}

/// A saga and whom it commands: the handler of its subscription, and what its workers drive.
pub struct PgSaga<S: Saga> {
    saga: S,
    commands: Box<dyn SagaCommands<S>>,
    pub(super) clock: Arc<dyn Clock>,
    actor: Arc<str>,
}

/// What an input is, and who is to blame for it.
pub(super) struct Cause {
    id: Uuid,
    at: Timestamp,
}

impl<S: Saga> PgSaga<S> {
    /// A saga whose commands `commands` executes.
    pub fn new(saga: S, commands: impl SagaCommands<S>) -> Self {
        Self {
            saga,
            commands: Box::new(commands),
            clock: Arc::new(SystemClock),
            actor: format!("saga:{}", S::NAME).into(),
        }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes one input of a locked instance.
    async fn take(
        &self,
        tx: &mut PgTx,
        key: &str,
        held: &mut Held<S>,
        cause: Cause,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send,
    ) -> Result<(), HandlerError> {
        if held.over {
            return Ok(());
        }
        let now = self.clock.now();
        let mut run = Run::new(&self.saga, &mut held.instance, cause.id, cause.at);
        input(&mut run).map_err(HandlerError::refused)?;
        while let Some(work) = run.next_work().map_err(HandlerError::refused)? {
            match work {
                Work::Command(command) => {
                    let context = self.context(held.origin.as_ref(), cause.id, now);
                    match self.commands.execute(tx, &command, &context).await? {
                        Commanded::Done => run.done(),
                        Commanded::Refused(refusal) => run.refused(refusal).map_err(HandlerError::refused)?,
                    }
                }
                Work::Send { id, effect } => effects::put::<S>(tx.connection(), key, id, &effect, now).await?,
                Work::SetTimer { id, timer, at } => timers::set::<S>(tx.connection(), key, id, &timer, at).await?,
                Work::CancelTimer(timer) => timers::cancel::<S>(tx.connection(), key, &timer).await?,
                Work::CancelTimers => timers::cancel_all::<S>(tx.connection(), key).await?,
            }
        }
        held.begun |= run.acted();
        Ok(())
    }

    /// Commands belong to the chain of the event the instance began with, and are caused by the input.
    fn context(&self, origin: Option<&Metadata>, cause: Uuid, now: Timestamp) -> CommandContext {
        let mut context = CommandContext::at(now).by(Arc::clone(&self.actor));
        context.causation_id = Some(cause);
        if let Some(origin) = origin {
            context.tenant = origin.tenant;
            context.correlation_id = origin.correlation_id;
            context.trace_context = origin.trace_context.clone();
        }
        context
    }

    /// Takes the input of a worker in a transaction of its own, again when it lost a race. Whether it was: not when it
    /// had been taken or withdrawn before, and a timer not while another transaction has the instance.
    pub(super) async fn take_alone(
        &self,
        store: &PgStore,
        key: &str,
        claim: Claim,
        at: Timestamp,
        input: impl Fn(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send + Sync,
    ) -> Result<bool, HandlerError> {
        let mut failed = 0;
        loop {
            match self.try_alone(store, key, claim, at, &input).await {
                Err(error) if error.is_race() && failed + 1 < RetryPolicy::CONFLICT.attempts => {
                    failed += 1;
                    tokio::time::sleep(RetryPolicy::CONFLICT.wait(failed)).await;
                }
                result => return result,
            }
        }
    }

    async fn try_alone(
        &self,
        store: &PgStore,
        key: &str,
        claim: Claim,
        at: Timestamp,
        input: impl Fn(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send + Sync,
    ) -> Result<bool, HandlerError> {
        let mut tx = store.begin().await?;
        let held = match claim {
            Claim::Timer { .. } => instances::lock_if_free::<S>(tx.connection(), key).await?,
            // Asking the other side again would cost more than waiting.
            Claim::Answer { .. } => instances::lock_present::<S>(tx.connection(), key).await?,
        };
        let Some(mut held) = held else { return Ok(false) };
        if !claim.take(tx.connection()).await? {
            return Ok(false);
        }
        self.take(&mut tx, key, &mut held, Cause { id: claim.id(), at }, input).await?;
        instances::write::<S>(tx.connection(), key, &held, self.clock.now()).await?;
        drop(tx.commit().await?);
        Ok(true)
    }
}

/// An input that is a row.
#[derive(Clone, Copy)]
pub(super) enum Claim {
    Timer {
        id: Uuid,
    },
    /// The answer to an effect on loan; `attempts` says which loan.
    Answer {
        id: Uuid,
        attempts: i32,
    },
}

impl Claim {
    fn id(self) -> Uuid {
        match self {
            Self::Timer { id } | Self::Answer { id, .. } => id,
        }
    }

    /// Takes the row away, if it is still there as it was found.
    async fn take(self, connection: &mut PgConnection) -> Result<bool, HandlerError> {
        let query = match self {
            // One that was set anew has another id.
            Self::Timer { id } => sqlx::query("delete from saga_timers where id = $1").bind(id),
            Self::Answer { id, attempts } => {
                sqlx::query("delete from saga_effects where id = $1 and attempts = $2").bind(id).bind(attempts)
            }
        };
        Ok(query.execute(connection).await?.rows_affected() == 1)
    }
}

#[async_trait]
impl<S: Saga> EventHandler<PgTx> for PgSaga<S> {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        S::NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.saga.aggregates()
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut inputs = Vec::new();
        for event in events {
            let Some((key, input)) = self.saga.correlate(event)? else { continue };
            if key.len() > MAX_KEY_BYTES {
                return Err(HandlerError::refused(format_args!("a key of {} bytes is too long", key.len())));
            }
            inputs.push((key, event, input));
        }
        let keys: BTreeSet<&str> = inputs.iter().map(|(key, ..)| key.as_str()).collect();
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let mut all: BTreeMap<String, Held<S>> = instances::lock::<S>(tx.connection(), &keys).await?;
        for (key, event, input) in inputs {
            let Some(held) = all.get_mut(&key) else { continue };
            held.origin.get_or_insert_with(|| event.metadata.clone());
            let cause = Cause { id: event.event_id, at: event.occurred_at };
            self.take(tx, &key, held, cause, |run| run.event(input)).await?;
        }
        let now = self.clock.now();
        for (key, held) in &all {
            instances::write::<S>(tx.connection(), key, held, now).await?;
        }
        Ok(())
    }
}

/// Runs a worker's input, which may panic or hang.
pub(super) async fn guarded<T>(input: impl Future<Output = Result<T, HandlerError>>) -> Result<T, HandlerError> {
    match tokio::time::timeout(DEADLINE, AssertUnwindSafe(input).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let detail = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(HandlerError::Panicked { detail })
        }
        Err(_) => Err(HandlerError::TimedOut { seconds: DEADLINE.as_secs() }),
    }
}

/// An instance, to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaStatus {
    /// The instance's key.
    pub instance: String,
    /// Where it is.
    pub phase: String,
    /// Timers that are set, parked ones included.
    pub timers: i64,
    /// Effects in the outbox, parked ones included.
    pub effects: i64,
    /// Why a timer or an answer of it is parked.
    pub parked: Option<String>,
}

/// One instance of the saga `saga`; `None` when it hasn't begun.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn status(store: &PgStore, saga: &str, instance: &str) -> Result<Option<SagaStatus>, StoreError> {
    let query = "select s.instance, s.phase, \
         (select count(*) from saga_timers t where t.saga = s.saga and t.instance = s.instance), \
         (select count(*) from saga_effects e where e.saga = s.saga and e.instance = s.instance), \
         coalesce((select t.error from saga_timers t \
             where t.saga = s.saga and t.instance = s.instance and t.parked_at is not null limit 1), \
         (select e.error from saga_effects e \
             where e.saga = s.saga and e.instance = s.instance and e.parked_at is not null limit 1)) \
         from sagas s where s.saga = $1 and s.instance = $2";
    let row = sqlx::query(query).bind(saga).bind(instance).fetch_optional(store.pool()).await;
    let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
    let read = || -> Result<SagaStatus, sqlx::Error> {
        Ok(SagaStatus {
            instance: row.try_get(0)?,
            phase: row.try_get(1)?,
            timers: row.try_get(2)?,
            effects: row.try_get(3)?,
            parked: row.try_get(4)?,
        })
    };
    read().map(Some).map_err(|error| store_error(&error))
}

/// Lets parked timers and answers of an instance be tried again, at once. Gives how many there were.
///
/// # Errors
/// [`StoreError`] when the database can't be written.
pub async fn release(store: &PgStore, saga: &str, instance: &str) -> Result<u64, StoreError> {
    let mut released = 0;
    for query in [
        "update saga_timers set parked_at = null, attempts = 0, try_at = due_at \
         where saga = $1 and instance = $2 and parked_at is not null",
        "update saga_effects set parked_at = null, attempts = 0, try_at = 0 \
         where saga = $1 and instance = $2 and parked_at is not null",
    ] {
        let done = sqlx::query(query).bind(saga).bind(instance).execute(store.pool()).await;
        released += done.map_err(|error| store_error(&error))?.rows_affected();
    }
    Ok(released)
}
