//! `execute`: from a command to committed events.
//!
//! The problem: loading, deciding, appending, losing a race and trying again is the same for every command, and each
//! part is easy to get subtly wrong.
//!
//! The invariants:
//! - a conflict is retried on what is new, and reaches the caller only when attempts run out;
//! - a refusal, or a decision to do nothing, made on a cached state is made again on a fresh one before it is reported,
//!   since optimistic concurrency never sees those;
//! - a command that comes again under its id gets its first result, and appends nothing.
//!
//! Commands on one aggregate don't wait for each other's disk flush: each is decided on what the one before it decided, and is
//! committed behind it or not at all ([`tip`](crate::repository::pending_states)). Where states are written with the events, each command is decided on
//! what is committed.
//!
//! Commands that lost a race line up, per aggregate and process, so that however many want the same aggregate, each loses
//! only a few times. Commands that haven't lost yet don't wait for anybody.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    cache::{Loaded, StateCache},
    context::CommandContext,
    id::AggregateId,
    repository::pending_states::{Attempt, Base, Decided, Tips},
    retry::RetryPolicy,
    snapshot::{SnapshotPolicy, Snapshots},
    state::{Change, StateStore},
    store::{Append, Appended, CommandRecord, EventStore, FoundCommand, NewEvent, StoreError},
    version::Version,
};

/// Executes commands of one kind of aggregate.
pub struct Repository<A: Aggregate, S: EventStore> {
    pub(super) store: S,
    pub(super) cache: StateCache<A>,
    pub(super) states: Option<Arc<dyn StateStore<A, S::Executor>>>,
    pub(super) snapshots: Option<(Snapshots, SnapshotPolicy)>,
    retry: RetryPolicy,
    local_wait: Duration,
    losers: Arc<[Mutex<()>; LINES]>,
    tips: Tips<A>,
}

// By hand, since a derived one would ask it of the store's executor.
impl<A: Aggregate, S: EventStore> Clone for Repository<A, S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            cache: self.cache.clone(),
            states: self.states.clone(),
            snapshots: self.snapshots.clone(),
            retry: self.retry,
            local_wait: self.local_wait,
            losers: Arc::clone(&self.losers),
            tips: self.tips.clone(),
        }
    }
}

/// How the events of a decision get to the store.
enum Appending<'a, F, A: Aggregate, X: Send + 'static> {
    /// They are in line already.
    Begun(F),
    /// They go with the state.
    WithState(Box<Append>, &'a Arc<dyn StateStore<A, X>>),
}

/// How many lines losers are spread over.
const LINES: usize = 64;

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The aggregate that changed; for a repeated command, the one the first attempt changed.
    pub aggregate_id: Uuid,
    /// The aggregate's version after the command.
    pub version: Version,
    /// How many events this call appended.
    pub appended: usize,
    /// Whether the command had been committed before.
    pub repeated: bool,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// The aggregate refused.
    #[error(transparent)]
    Rejected(E),
    /// Others kept changing the aggregate.
    #[error("{aggregate} {id} was changed by others each time: expected version {expected}, found {actual}")]
    Conflict {
        /// The aggregate's name.
        aggregate: &'static str,
        /// Which aggregate.
        id: Uuid,
        /// The version of the last attempt.
        expected: Version,
        /// The version it met.
        actual: Version,
    },
    /// The aggregate is not at the version the caller has seen.
    #[error("{aggregate} {id} is at version {actual}, not {expected}")]
    Stale {
        /// The aggregate's name.
        aggregate: &'static str,
        /// Which aggregate.
        id: Uuid,
        /// The version the caller has seen.
        expected: Version,
        /// The version it is at.
        actual: Version,
    },
    /// The command's id was used for another command.
    #[error("command id {command_id} belongs to another command")]
    CommandReused {
        /// The id.
        command_id: Uuid,
    },
    /// The store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// A repository with a cache of 10,000 states.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store,
            cache: StateCache::new(10_000),
            states: None,
            snapshots: None,
            retry: RetryPolicy::CONFLICT,
            local_wait: Duration::from_millis(500),
            losers: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            tips: Tips::new(),
        }
    }

    /// The same with a cache of `states` states; `0` switches it off.
    #[must_use]
    pub fn with_cache(mut self, states: u64) -> Self {
        self.cache = StateCache::new(states);
        self
    }

    /// The same with states in tables of their own, written with each commit; see [`state`](crate::state).
    #[must_use]
    pub fn with_states(mut self, states: Arc<dyn StateStore<A, S::Executor>>) -> Self {
        self.states = Some(states);
        self
    }

    /// The same with snapshots, written as `policy` says; see [`snapshot`](crate::snapshot).
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: &Snapshots, policy: SnapshotPolicy) -> Self {
        self.snapshots = (policy != SnapshotPolicy::Never).then(|| (snapshots.clone(), policy));
        self
    }

    /// The same with another number of attempts and other waits after conflicts.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same with another bound on the wait for handlers in this process.
    #[must_use]
    pub fn with_local_wait(mut self, limit: Duration) -> Self {
        self.local_wait = limit;
        self
    }

    /// The store commands are committed to.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The newest state known without asking the store; version 0 when none is. Only a starting point.
    #[must_use]
    pub fn cached(&self, id: Uuid) -> Loaded<A> {
        self.cache.get(id).unwrap_or_default()
    }

    /// Where states live besides the log.
    #[must_use]
    pub fn states(&self) -> Option<&Arc<dyn StateStore<A, S::Executor>>> {
        self.states.as_ref()
    }

    /// Takes notice of a commit: keeps its state in the cache and as a snapshot.
    pub fn committed(&self, change: Change<A>) {
        if let Some((snapshots, policy)) = &self.snapshots {
            snapshots.committed(*policy, &change);
        }
        self.cache.put(change.id, change.after);
    }

    /// Decides a command on aggregate `id` and commits what it causes.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    #[tracing::instrument(level = "debug", skip_all, fields(aggregate = A::NAME, id = %id.uuid()))]
    pub async fn execute(
        &self,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Executed, ExecuteError<A::Error>> {
        let id = id.uuid();
        match self.cache.get(id) {
            Some(cached) => self.run(id, command, context, cached, false).await,
            None => {
                let loaded = self.refresh(id, Loaded::default()).await?;
                self.run(id, command, context, loaded, true).await
            }
        }
    }

    /// The same for an id that is thought to be new: saves reading a stream that isn't there.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn create(
        &self,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Executed, ExecuteError<A::Error>> {
        self.run(id.uuid(), command, context, Loaded::default(), false).await
    }

    /// What a command came to when it was committed before under its id; none if it wasn't, or can't come again.
    ///
    /// For whoever refuses a command before it is executed: what was done once is answered as it was then, whatever has
    /// changed since.
    ///
    /// # Errors
    /// [`ExecuteError::CommandReused`] and [`ExecuteError::Store`].
    pub async fn repeated(&self, context: &CommandContext) -> Result<Option<Executed>, ExecuteError<A::Error>> {
        let Some(idempotency) = &context.idempotency else { return Ok(None) };
        match self.store.find_command(context.command_id, &idempotency.fingerprint).await? {
            None => Ok(None),
            Some(FoundCommand::Same(record)) => Ok(Some(repeated(record))),
            Some(FoundCommand::Other) => Err(ExecuteError::CommandReused { command_id: context.command_id }),
        }
    }

    async fn run(
        &self,
        id: Uuid,
        command: &A::Command,
        context: &CommandContext,
        mut loaded: Loaded<A>,
        mut fresh: bool,
    ) -> Result<Executed, ExecuteError<A::Error>> {
        let mut conflicts = 0;
        let mut turn = None;
        // A state is written with its events in a transaction of its own, which comes behind nothing that is still on its way.
        let in_turn = self.states.is_some();
        let mut committed_only = in_turn;
        loop {
            let attempt = self.tips.decide(
                id,
                &loaded,
                committed_only,
                |base| Self::decide(id, base, command, context),
                |append| match &self.states {
                    None => Appending::Begun(self.store.append(append)),
                    Some(states) => Appending::WithState(Box::new(append), states),
                },
            );
            if !in_turn {
                // Whoever comes next in line decides on what was just decided.
                drop(turn.take());
            }
            let Attempt { decided, at: expected, speculative, started } = attempt;
            let Some((flight, appending)) = started else {
                loaded = if fresh && !speculative {
                    match self.nothing_to_append(id, decided, context).await? {
                        ControlFlow::Break(executed) => return Ok(executed),
                        ControlFlow::Continue(actual) => {
                            conflicts += 1;
                            if conflicts >= self.retry.attempts {
                                return Err(ExecuteError::Conflict { aggregate: A::NAME, id, expected, actual });
                            }
                            self.catch_up(id, loaded, actual).await?
                        }
                    }
                } else {
                    self.refresh(id, loaded).await?
                };
                fresh = true;
                committed_only = true;
                continue;
            };
            let change = decided?.change;
            let appended = match appending {
                Appending::Begun(appending) => appending.await?,
                Appending::WithState(append, states) => {
                    self.store.append_with_state(*append, &**states, &change).await?
                }
            };
            match appended {
                Appended::Committed { events, receipt } => {
                    let version = change.after.version;
                    self.committed(change);
                    flight.landed();
                    receipt.wait(self.local_wait).await;
                    return Ok(Executed { aggregate_id: id, version, appended: events.len(), repeated: false });
                }
                Appended::Repeated(record) => return Ok(repeated(record)),
                Appended::Reused => return Err(ExecuteError::CommandReused { command_id: context.command_id }),
                Appended::Conflict { actual } => {
                    drop(flight);
                    conflicts += 1;
                    metrics::counter!("epoch_conflicts_total", "aggregate" => A::NAME).increment(1);
                    if conflicts >= self.retry.attempts {
                        return Err(ExecuteError::Conflict { aggregate: A::NAME, id, expected, actual });
                    }
                    if conflicts > 1 {
                        // Lost to another process.
                        tokio::time::sleep(self.retry.wait(conflicts - 1)).await;
                    }
                    if turn.is_none() {
                        turn = Some(self.line_up(id).await);
                    }
                    loaded = self.catch_up(id, loaded, actual).await?;
                    fresh = true;
                    committed_only = in_turn;
                }
            }
        }
    }

    /// What a command comes to that appends no event: a refusal, or nothing to do, whose result is kept where it may be asked for again;
    /// the aggregate's version when it has changed meanwhile.
    async fn nothing_to_append(
        &self,
        id: Uuid,
        decided: Result<Decided<A>, ExecuteError<A::Error>>,
        context: &CommandContext,
    ) -> Result<ControlFlow<Executed, Version>, ExecuteError<A::Error>> {
        if let Some(first) = self.repeated(context).await? {
            return Ok(ControlFlow::Break(first));
        }
        let Decided { append, change } = decided?;
        let done = Executed { aggregate_id: id, version: change.after.version, appended: 0, repeated: false };
        let Some(append) = append else { return Ok(ControlFlow::Break(done)) };
        match self.store.append(append).await? {
            Appended::Committed { .. } => Ok(ControlFlow::Break(done)),
            Appended::Repeated(record) => Ok(ControlFlow::Break(repeated(record))),
            Appended::Reused => Err(ExecuteError::CommandReused { command_id: context.command_id }),
            Appended::Conflict { actual } => Ok(ControlFlow::Continue(actual)),
        }
    }

    /// Waits for those that lost before: until they have read what is new and have decided on it, or, where states are written with
    /// events, until they have their result.
    async fn line_up(&self, id: Uuid) -> MutexGuard<'_, ()> {
        let [.., last] = id.into_bytes();
        self.losers[usize::from(last) % LINES].lock().await
    }

    fn decide(
        id: Uuid,
        base: &Base<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Decided<A>, ExecuteError<A::Error>> {
        let Base { loaded, previous } = base;
        if let Some(expected) = context.expected
            && expected != loaded.version
        {
            return Err(ExecuteError::Stale { aggregate: A::NAME, id, expected, actual: loaded.version });
        }
        let events = loaded.state.decide(command).map_err(ExecuteError::Rejected)?;
        let change = Change::new(id, loaded.clone(), &events);
        if events.is_empty() && context.idempotency.is_none() {
            return Ok(Decided { append: None, change });
        }
        let append = Append {
            aggregate: A::NAME,
            aggregate_id: id,
            expected: loaded.version,
            previous: *previous,
            events: events.iter().map(NewEvent::encode).collect::<Result<_, _>>().map_err(StoreError::from)?,
            context: context.clone(),
        };
        Ok(Decided { append: Some(append), change })
    }
}

fn repeated(record: CommandRecord) -> Executed {
    Executed { aggregate_id: record.aggregate_id, version: record.version, appended: 0, repeated: true }
}
