//! The saga as a handler of events, and as the target of its workers' inputs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Metadata, Timestamp,
    clock::{Clock, SystemClock},
    handler::EventHandler,
    retry::RetryPolicy,
    saga::{Run, RunError, Saga, Work},
};
use uuid::Uuid;

use crate::{
    delivery::error::HandlerError,
    saga::{
        claim::{Claim, ClaimedInput},
        commands::{CommandOutcome, SagaCommands},
        effect_outbox,
        instances::{self, LockedInstance},
        timer_rows,
    },
    store::pg_store::PgStore,
    transaction::pg_tx::PgTx,
};

/// The longest key of an instance, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// How long a worker's input may take.
pub(super) const INPUT_DEADLINE: Duration = Duration::from_secs(30);
/// How often workers look for due rows.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A saga and the executor of its commands: the handler of its subscription, driven further by its workers.
pub struct PgSaga<S: Saga> {
    saga: S,
    commands: Box<dyn SagaCommands<S>>,
    pub(super) clock: Arc<dyn Clock>,
    actor: Arc<str>,
}

/// The id and the time of an input.
struct Cause {
    id: Uuid,
    at: Timestamp,
}

impl<S: Saga> PgSaga<S> {
    /// Creates a saga; `commands` executes its commands.
    pub fn new(saga: S, commands: impl SagaCommands<S>) -> Self {
        Self {
            saga,
            commands: Box::new(commands),
            clock: Arc::new(SystemClock),
            actor: format!("saga:{}", S::NAME).into(),
        }
    }

    /// Sets the clock (default: the system clock).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Processes one input of a locked instance.
    async fn process(
        &self,
        tx: &mut PgTx,
        key: &str,
        locked: &mut LockedInstance<S>,
        cause: Cause,
        input: impl FnOnce(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send,
    ) -> Result<(), HandlerError> {
        if locked.was_completed {
            return Ok(());
        }
        let now = self.clock.now();
        let mut run = Run::new(&self.saga, &mut locked.instance, cause.id, cause.at);
        input(&mut run).map_err(HandlerError::refused)?;
        while let Some(work) = run.next_work().map_err(HandlerError::refused)? {
            match work {
                Work::Command(command) => {
                    let context = self.context(locked.origin.as_ref(), cause.id, now);
                    match self.commands.execute(tx, &command, &context).await? {
                        CommandOutcome::Done => run.done(),
                        CommandOutcome::Refused(refusal) => run.refused(refusal).map_err(HandlerError::refused)?,
                    }
                }
                Work::Send { id, effect } => {
                    effect_outbox::insert::<S>(tx.connection(), key, id, &effect, now).await?;
                }
                Work::SetTimer { id, timer, at } => {
                    timer_rows::set::<S>(tx.connection(), key, id, &timer, at).await?;
                }
                Work::CancelTimer(timer) => timer_rows::cancel::<S>(tx.connection(), key, &timer).await?,
                Work::CancelTimers => timer_rows::cancel_all::<S>(tx.connection(), key).await?,
            }
        }
        locked.has_begun |= run.acted();
        Ok(())
    }

    /// Returns the context of a command: caused by the input, and correlated with the event that began the instance.
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

    /// Processes a worker's input in a transaction of its own, and again after a conflict.
    ///
    /// Returns `false` when the input was processed or withdrawn before, or when it is a timer and another transaction
    /// has locked the instance.
    pub(super) async fn process_claim(
        &self,
        store: &PgStore,
        claimed: ClaimedInput<'_>,
        input: impl Fn(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send + Sync,
    ) -> Result<bool, HandlerError> {
        let mut failed = 0;
        loop {
            match self.try_process_claim(store, claimed, &input).await {
                Err(error) if error.is_conflict() && failed + 1 < RetryPolicy::CONFLICT.attempts => {
                    failed += 1;
                    tokio::time::sleep(RetryPolicy::CONFLICT.wait(failed)).await;
                }
                result => return result,
            }
        }
    }

    async fn try_process_claim<I>(
        &self,
        store: &PgStore,
        claimed: ClaimedInput<'_>,
        input: &I,
    ) -> Result<bool, HandlerError>
    where
        I: Fn(&mut Run<'_, S>) -> Result<(), RunError<S::Error>> + Send + Sync,
    {
        let ClaimedInput { key, claim, at } = claimed;
        let mut tx = store.begin().await?;
        let locked = match claim {
            Claim::Timer { .. } => instances::lock_if_free::<S>(tx.connection(), key).await?,
            // Waiting for the lock costs less than sending the effect again.
            Claim::Answer { .. } => instances::lock_existing::<S>(tx.connection(), key).await?,
        };
        let Some(mut locked) = locked else { return Ok(false) };
        if !claim.take(tx.connection()).await? {
            return Ok(false);
        }
        self.process(&mut tx, key, &mut locked, Cause { id: claim.id(), at }, input).await?;
        instances::write::<S>(tx.connection(), key, &locked, self.clock.now()).await?;
        drop(tx.commit().await?);
        Ok(true)
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
        let mut instances: BTreeMap<String, LockedInstance<S>> =
            instances::lock_or_insert::<S>(tx.connection(), &keys).await?;
        for (key, event, input) in inputs {
            let Some(locked) = instances.get_mut(&key) else { continue };
            locked.origin.get_or_insert_with(|| event.metadata.clone());
            let cause = Cause { id: event.event_id, at: event.occurred_at };
            self.process(tx, &key, locked, cause, |run| run.event(input)).await?;
        }
        let now = self.clock.now();
        for (key, locked) in &instances {
            instances::write::<S>(tx.connection(), key, locked, now).await?;
        }
        Ok(())
    }
}
