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
//! committed behind it or not at all ([`tip`](crate::tip)).
//!
//! Commands that lost a race line up, per aggregate and process, so that however many want the same aggregate, each loses
//! only a few times. Commands that haven't lost yet don't wait for anybody.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    cache::{Loaded, StateCache},
    context::CommandContext,
    retry::RetryPolicy,
    store::{Append, Appended, CommandRecord, EventStore, FoundCommand, NewEvent, StoreError},
    tip::{Attempt, Base, Decided, Tips},
    version::Version,
};

/// Executes commands of one kind of aggregate.
#[derive(Clone)]
pub struct Repository<A: Aggregate, S> {
    store: S,
    cache: StateCache<A>,
    retry: RetryPolicy,
    local_wait: Duration,
    losers: Arc<[Mutex<()>; LINES]>,
    tips: Tips<A>,
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

    /// Keeps a state that is committed.
    pub fn remember(&self, id: Uuid, loaded: Loaded<A>) {
        self.cache.put(id, loaded);
    }

    /// The aggregate as the store has it now.
    ///
    /// # Errors
    /// [`StoreError`] when the store can't be read or an event can't be decoded.
    pub async fn load(&self, id: Uuid) -> Result<Loaded<A>, StoreError> {
        self.refresh(id, self.cached(id)).await
    }

    /// Decides a command on aggregate `id` and commits what it causes.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    #[tracing::instrument(level = "debug", skip_all, fields(aggregate = A::NAME, %id))]
    pub async fn execute(
        &self,
        id: Uuid,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Executed, ExecuteError<A::Error>> {
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
        id: Uuid,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Executed, ExecuteError<A::Error>> {
        self.run(id, command, context, Loaded::default(), false).await
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
        let mut committed_only = false;
        loop {
            let attempt = self.tips.decide(
                id,
                &loaded,
                committed_only,
                |base| Self::decide(id, base, command, context),
                |append| self.store.append(append),
            );
            // Whoever comes next in line decides on what was just decided.
            drop(turn.take());
            let Attempt { decided, speculative, started } = attempt;
            let Some((flight, appending)) = started else {
                if fresh
                    && !speculative
                    && let Some(executed) = self.nothing_to_append(id, decided, context).await?
                {
                    return Ok(executed);
                }
                loaded = self.refresh(id, loaded).await?;
                fresh = true;
                committed_only = true;
                continue;
            };
            let after = decided?.after;
            let expected = loaded.version;
            match appending.await? {
                Appended::Committed { events, receipt } => {
                    let version = after.version;
                    self.cache.put(id, after);
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
                    turn = Some(self.line_up(id).await);
                    // One before it in line may have read what is new.
                    loaded = match self.cache.newest(id) {
                        Some(cached) if cached.version >= actual => cached,
                        _ => self.refresh(id, loaded).await?,
                    };
                    fresh = true;
                    committed_only = false;
                }
            }
        }
    }

    /// What a command comes to that appends no event: a refusal, or nothing to do, whose result is kept where it may be asked for again;
    /// `None` when the aggregate has changed meanwhile.
    async fn nothing_to_append(
        &self,
        id: Uuid,
        decided: Result<Decided<A>, ExecuteError<A::Error>>,
        context: &CommandContext,
    ) -> Result<Option<Executed>, ExecuteError<A::Error>> {
        if let Some(first) = self.committed_before(context).await? {
            return Ok(Some(first));
        }
        let Decided { append, after } = decided?;
        let done = Executed { aggregate_id: id, version: after.version, appended: 0, repeated: false };
        let Some(append) = append else { return Ok(Some(done)) };
        match self.store.append(append).await? {
            Appended::Committed { .. } => Ok(Some(done)),
            Appended::Repeated(record) => Ok(Some(repeated(record))),
            Appended::Reused => Err(ExecuteError::CommandReused { command_id: context.command_id }),
            Appended::Conflict { .. } => Ok(None),
        }
    }

    /// Waits for those that lost before, until they have read what is new and have decided on it.
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
        let mut after = loaded.clone();
        if events.is_empty() && context.idempotency.is_none() {
            return Ok(Decided { append: None, after });
        }
        let append = Append {
            aggregate: A::NAME,
            aggregate_id: id,
            expected: loaded.version,
            previous: *previous,
            events: events.iter().map(NewEvent::encode).collect::<Result<_, _>>().map_err(StoreError::from)?,
            context: context.clone(),
        };
        for event in &events {
            after.evolve(event);
        }
        Ok(Decided { append: Some(append), after })
    }

    async fn committed_before(&self, context: &CommandContext) -> Result<Option<Executed>, ExecuteError<A::Error>> {
        let Some(idempotency) = &context.idempotency else { return Ok(None) };
        match self.store.find_command(context.command_id, &idempotency.fingerprint).await? {
            None => Ok(None),
            Some(FoundCommand::Same(record)) => Ok(Some(repeated(record))),
            Some(FoundCommand::Other) => Err(ExecuteError::CommandReused { command_id: context.command_id }),
        }
    }

    /// Brings a state up to date by reading only what is newer.
    async fn refresh(&self, id: Uuid, mut loaded: Loaded<A>) -> Result<Loaded<A>, StoreError> {
        let mut events = self.store.stream(A::NAME, id, loaded.version);
        let mut read = 0_u64;
        while let Some(envelope) = events.try_next().await? {
            if envelope.version != loaded.version.next() {
                let detail = format!("{} {id} has version {} after {}", A::NAME, envelope.version, loaded.version);
                return Err(StoreError::Refused { detail });
            }
            loaded.evolve_stored(&envelope.decode_all()?);
            read += 1;
        }
        if read > 0 {
            metrics::counter!("epoch_events_loaded_total", "aggregate" => A::NAME).increment(read);
            self.cache.put(id, loaded.clone());
        }
        Ok(loaded)
    }
}

fn repeated(record: CommandRecord) -> Executed {
    Executed { aggregate_id: record.aggregate_id, version: record.version, appended: 0, repeated: true }
}
