//! From a command to committed events.
//!
//! Invariants:
//! - A write conflict is retried on the new state and reaches the caller only when attempts run out.
//! - A rejection or a no-op that was decided on a cached or pending state is decided again on fresh, committed state
//!   before it is returned. Optimistic concurrency does not cover them, because they append nothing.
//! - A repeated command returns its first result and appends nothing.
//!
//! Commands on one aggregate do not wait for each other's disk flush: each is decided on the [pending
//! state](super::pending_states) of the previous one. With a state store, each command is decided on committed state
//! instead: the state is written in the transaction of its events, which cannot build on an uncommitted transaction.

use std::{ops::ControlFlow, sync::Arc};

use uuid::Uuid;

use super::{
    conflict_queue::Turn,
    decision::Decision,
    outcome::{ExecuteError, ExecutionOutcome},
    pending_states::{Attempt, InFlightAppend},
    repository::Repository,
};
use crate::{
    aggregate::{Aggregate, VersionedState, context::CommandContext, id::AggregateId},
    event::version::Version,
    store::{
        Append, AppendOutcome, EventStore, StoreError,
        state::{Change, StateStore},
    },
};

/// The stage of a command's execution. It determines the state that the next decision is based on.
enum ExecutionPhase<'q> {
    /// The first decision, on a state of unknown age: the cached one, or the default state for [`Repository::create`].
    Optimistic,
    /// The first decision, on a state that was just read from the store.
    Fresh,
    /// A decision on fresh, committed state, after a rejection or a no-op on a state that may have been outdated or
    /// uncommitted.
    ///
    /// Holds a turn only with a state store, after an earlier conflict.
    Confirming { turn: Option<Turn<'q>> },
    /// A decision after a write conflict, in the order of the conflict queue.
    Queued { turn: Turn<'q> },
}

impl<'q> ExecutionPhase<'q> {
    /// Whether the state is as new as the last read of the store.
    fn is_fresh(&self) -> bool {
        !matches!(self, Self::Optimistic)
    }

    fn is_confirming(&self) -> bool {
        matches!(self, Self::Confirming { .. })
    }

    fn into_turn(self) -> Option<Turn<'q>> {
        match self {
            Self::Optimistic | Self::Fresh => None,
            Self::Confirming { turn } => turn,
            Self::Queued { turn } => Some(turn),
        }
    }
}

/// How the events of a decision reach the store.
enum Appending<'a, F, A: Aggregate, X: Send + 'static> {
    /// The append is enqueued at the store already.
    Enqueued(F),
    /// The append is sent together with the state.
    WithState(Box<Append>, &'a Arc<dyn StateStore<A, X>>),
}

/// A final outcome, or the version that a write conflict found.
type Completion = ControlFlow<ExecutionOutcome, Version>;

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// Decides a command on aggregate `id` and commits its events.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    #[tracing::instrument(level = "debug", skip_all, fields(aggregate = A::NAME, id = %id.uuid()))]
    pub async fn execute(
        &self,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<ExecutionOutcome, ExecuteError<A::Error>> {
        let id = id.uuid();
        match self.cache.get(id) {
            Some(cached) => self.run(id, command, context, cached, ExecutionPhase::Optimistic).await,
            None => {
                let state = self.refresh(id, VersionedState::default()).await?;
                self.run(id, command, context, state, ExecutionPhase::Fresh).await
            }
        }
    }

    /// Executes a command on an aggregate that probably does not exist, which saves reading its stream.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn create(
        &self,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<ExecutionOutcome, ExecuteError<A::Error>> {
        self.run(id.uuid(), command, context, VersionedState::default(), ExecutionPhase::Optimistic).await
    }

    /// Returns the stored result of an earlier execution of this command id, or `None` if there is none.
    ///
    /// Callers that reject a command before executing it must look here first, because the state that justifies the
    /// rejection may be newer than the first execution.
    ///
    /// # Errors
    /// [`ExecuteError::CommandReused`] and [`ExecuteError::Store`].
    pub async fn find_repeated(
        &self,
        context: &CommandContext,
    ) -> Result<Option<ExecutionOutcome>, ExecuteError<A::Error>> {
        let Some(idempotency) = &context.idempotency else { return Ok(None) };
        let lookup = self.store.find_command(context.command_id, &idempotency.fingerprint).await?;
        ExecutionOutcome::of_lookup(lookup, context.command_id)
    }

    /// Decides and appends until the command has an outcome or attempts run out.
    async fn run(
        &self,
        id: Uuid,
        command: &A::Command,
        context: &CommandContext,
        mut state: VersionedState<A>,
        mut phase: ExecutionPhase<'_>,
    ) -> Result<ExecutionOutcome, ExecuteError<A::Error>> {
        let writes_state = self.states.is_some();
        let mut conflicts = 0;
        loop {
            let (fresh, committed_only) = (phase.is_fresh(), writes_state || phase.is_confirming());
            let attempt = self.pending_states.decide(
                id,
                &state,
                committed_only,
                |base| Decision::on_state(id, base.state.clone(), base.previous, command, context),
                |append| match &self.states {
                    None => Appending::Enqueued(self.store.append(append)),
                    Some(states) => Appending::WithState(Box::new(append), states),
                },
            );
            // Without a state store the turn ends here: the next command in the queue builds on the pending state of
            // this one. With a state store it must find this command's state committed, so the turn is held until there
            // is an outcome.
            let turn = phase.into_turn().filter(|_| writes_state);
            let Attempt { decision, version, speculative, started } = attempt;
            let Some((in_flight, appending)) = started else {
                state = if fresh && !speculative {
                    match self.finish_without_events(id, decision, context).await? {
                        ControlFlow::Break(outcome) => return Ok(outcome),
                        ControlFlow::Continue(actual) => {
                            conflicts += 1;
                            self.check_attempts(id, conflicts, version, actual)?;
                            self.catch_up(id, state, actual).await?
                        }
                    }
                } else {
                    self.refresh(id, state).await?
                };
                phase = ExecutionPhase::Confirming { turn };
                continue;
            };
            let actual = match self.commit(decision?.change, in_flight, appending, context).await? {
                ControlFlow::Break(outcome) => return Ok(outcome),
                ControlFlow::Continue(actual) => actual,
            };
            conflicts += 1;
            metrics::counter!("epoch_conflicts_total", "aggregate" => A::NAME).increment(1);
            self.check_attempts(id, conflicts, version, actual)?;
            let turn = self.wait_to_retry(id, conflicts, turn).await;
            // Read after the turn has come: commands ahead in the queue have changed the state meanwhile.
            state = self.catch_up(id, state, actual).await?;
            phase = ExecutionPhase::Queued { turn };
        }
    }

    /// Completes an append. After a commit the state is cached before the pending state is removed, so that the next
    /// command finds one of them.
    async fn commit<F>(
        &self,
        change: Change<A>,
        in_flight: InFlightAppend<A>,
        appending: Appending<'_, F, A, S::Executor>,
        context: &CommandContext,
    ) -> Result<Completion, ExecuteError<A::Error>>
    where
        F: Future<Output = Result<AppendOutcome, StoreError>> + Send,
    {
        let appended = match appending {
            Appending::Enqueued(appending) => appending.await?,
            Appending::WithState(append, states) => self.store.append_with_state(*append, &**states, &change).await?,
        };
        match appended {
            AppendOutcome::Committed { events, receipt } => {
                let (aggregate_id, version) = (change.id, change.after.version);
                self.record_commit(change);
                in_flight.committed();
                receipt.wait(self.fast_path_wait).await;
                let outcome = ExecutionOutcome { aggregate_id, version, appended: events.len(), repeated: false };
                Ok(ControlFlow::Break(outcome))
            }
            AppendOutcome::Repeated(record) => Ok(ControlFlow::Break(ExecutionOutcome::repeated(record))),
            AppendOutcome::Reused => Err(ExecuteError::CommandReused { command_id: context.command_id }),
            AppendOutcome::Conflict { actual } => Ok(ControlFlow::Continue(actual)),
        }
    }

    /// Finishes a command without events: a rejection or a no-op. Stores the result of a repeatable no-op.
    async fn finish_without_events(
        &self,
        id: Uuid,
        decision: Result<Decision<A>, ExecuteError<A::Error>>,
        context: &CommandContext,
    ) -> Result<Completion, ExecuteError<A::Error>> {
        if let Some(first) = self.find_repeated(context).await? {
            return Ok(ControlFlow::Break(first));
        }
        let Decision { append, change } = decision?;
        let outcome =
            ExecutionOutcome { aggregate_id: id, version: change.after.version, appended: 0, repeated: false };
        let Some(append) = append else { return Ok(ControlFlow::Break(outcome)) };
        match self.store.append(append).await? {
            AppendOutcome::Committed { .. } => Ok(ControlFlow::Break(outcome)),
            AppendOutcome::Repeated(record) => Ok(ControlFlow::Break(ExecutionOutcome::repeated(record))),
            AppendOutcome::Reused => Err(ExecuteError::CommandReused { command_id: context.command_id }),
            AppendOutcome::Conflict { actual } => Ok(ControlFlow::Continue(actual)),
        }
    }

    /// Waits for a turn in the conflict queue, unless one is `held`; from the second conflict on, after a random delay.
    ///
    /// The queue excludes conflicts between commands that retry in this process, so a second conflict comes from
    /// another process.
    async fn wait_to_retry<'q>(&'q self, id: Uuid, conflicts: u32, held: Option<Turn<'q>>) -> Turn<'q> {
        if conflicts > 1 {
            tokio::time::sleep(self.retry.wait(conflicts - 1)).await;
        }
        match held {
            Some(turn) => turn,
            None => self.conflict_queue.wait_turn(id).await,
        }
    }

    /// Returns [`ExecuteError::Conflict`] when the attempts are used up.
    fn check_attempts(
        &self,
        id: Uuid,
        conflicts: u32,
        expected: Version,
        actual: Version,
    ) -> Result<(), ExecuteError<A::Error>> {
        if conflicts >= self.retry.attempts {
            return Err(ExecuteError::Conflict { aggregate: A::NAME, id, expected, actual });
        }
        Ok(())
    }
}
