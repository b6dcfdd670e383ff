//! Transactions over several aggregates of a service and its own tables.
//!
//! The problem: a change that touches two aggregates, or an aggregate and a table beside it, must not be seen by halves.
//!
//! The invariant: everything done through a [`PgTx`] commits together: events, states, the caller's rows. Events are appended last,
//! so that the store's lock is held only for the commit itself; a lost race rolls everything back and the whole body runs again.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use epoch::{
    Aggregate, AggregateId, CommandContext, Envelope, ExecuteError, Executed, Repository, Version,
    cache::Loaded,
    fold::Fold,
    local::Receipt,
    retry::RetryPolicy,
    state::Change,
    store::{Append, CommandRecord, FoundCommand, NewEvent, StoreError},
};
use futures::future::BoxFuture;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    database::connect,
    database::connect::Open,
    database::error::{is_race, is_transient},
    store::append::{Outcome, append_batch},
    store::pg_store::{PgStore, find_command},
    store::states::{WriteState, Written},
    store::streams::visit_on,
};

const SOON: &str = "begin; set local synchronous_commit to off";

type AfterCommit = Box<dyn FnOnce() + Send>;

/// An open transaction.
pub struct PgTx {
    inner: Inner,
    store: PgStore,
    states: HashMap<(&'static str, Uuid), Box<dyn Any + Send + Sync>>,
    appends: Vec<Append>,
    after_commit: Vec<AfterCommit>,
    durability: Durability,
    /// States to write, the last one of each aggregate.
    writes: BTreeMap<(&'static str, Uuid), Box<dyn WriteState>>,
}

/// A transaction of the caller's or of the pool, or one of the local way.
enum Inner {
    Given(Transaction<'static, Postgres>),
    Opened(Open),
}

impl Inner {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Given(transaction) => transaction,
            Self::Opened(open) => open.connection(),
        }
    }
}

/// When a commit is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it answers, or whatever the server is set to.
    AtCommit,
    /// A moment later, but never later than any other commit that comes after it. Only for what somebody brings again when it is lost.
    Soon,
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// Another command was faster; the whole transaction may be tried again.
    #[error("{aggregate} {id} was changed by another command: expected version {expected}, found {actual}")]
    Conflict {
        /// The aggregate's name.
        aggregate: &'static str,
        /// Which aggregate.
        id: Uuid,
        /// The version decided at.
        expected: Version,
        /// The version it was at.
        actual: Version,
    },
    /// A repeatable command of it was committed meanwhile; tried again, it gives its first result.
    #[error("command {command_id} was committed meanwhile")]
    Repeated {
        /// Which.
        command_id: Uuid,
    },
    /// The store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database gave no answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl TxError {
    /// Whether the transaction only lost a race against another one.
    #[must_use]
    pub fn is_race(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Repeated { .. } => true,
            Self::Sql(error) => is_race(error),
            Self::Store(_) => false,
        }
    }

    /// Whether the same transaction may succeed when tried again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Repeated { .. } | Self::Store(StoreError::Unavailable { .. }) => true,
            Self::Store(_) => false,
            Self::Sql(error) => is_transient(error),
        }
    }
}

impl PgStore {
    /// Opens a transaction.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn begin(&self) -> Result<PgTx, TxError> {
        self.begin_with(Durability::AtCommit).await
    }

    pub(crate) async fn begin_with(&self, durability: Durability) -> Result<PgTx, TxError> {
        let begin = match durability {
            Durability::AtCommit => "begin",
            Durability::Soon => SOON,
        };
        Ok(PgTx { durability, ..self.adopt(crate::database::connect::begin(self.pool(), begin).await?) })
    }

    /// Opens a transaction whose commit is on disk [soon](Durability::Soon) together with its first statement: one round trip
    /// less. Nothing in the statement may come from outside.
    pub(crate) async fn begin_soon_with(&self, statement: &str) -> Result<PgTx, sqlx::Error> {
        // Such transactions are of few events: planning a handler's statements each time would take as long as running them.
        let statements = format!("{SOON}; set local plan_cache_mode to force_generic_plan; {statement}");
        let open = connect::open(self.pool(), statements).await?;
        Ok(PgTx { durability: Durability::Soon, ..self.holding(Inner::Opened(open)) })
    }

    /// Goes on with a transaction of the caller's, on the same database: what was done in it before commits with the events.
    #[must_use]
    pub fn adopt(&self, transaction: Transaction<'static, Postgres>) -> PgTx {
        self.holding(Inner::Given(transaction))
    }

    fn holding(&self, inner: Inner) -> PgTx {
        PgTx {
            inner,
            store: self.clone(),
            states: HashMap::new(),
            appends: Vec::new(),
            after_commit: Vec::new(),
            durability: Durability::AtCommit,
            writes: BTreeMap::new(),
        }
    }

    /// Runs `body` in a transaction and commits it; when a race was lost, runs it again.
    ///
    /// # Errors
    /// What `body` says, or [`TxError`] when attempts run out or the database gives no answer.
    pub async fn transaction<T, E, F>(&self, mut body: F) -> Result<T, E>
    where
        E: From<TxError>,
        F: for<'tx> FnMut(&'tx mut PgTx) -> BoxFuture<'tx, Result<T, E>>,
    {
        let retry = RetryPolicy::CONFLICT;
        let mut failed = 0;
        loop {
            let mut tx = self.begin().await?;
            let value = body(&mut tx).await?;
            match tx.commit().await {
                Ok(receipt) => {
                    receipt.wait(std::time::Duration::from_millis(500)).await;
                    return Ok(value);
                }
                Err(error) if error.is_race() && failed + 1 < retry.attempts => {
                    failed += 1;
                    tokio::time::sleep(retry.wait(failed)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl PgTx {
    /// The connection, for the caller's own tables.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.inner.connection()
    }

    /// What a command was answered that was executed before under the same id; nothing for one that is new.
    ///
    /// [`PgTx::execute`] asks by itself. A transaction that does more than this one command (takes a number, chooses an aggregate) asks
    /// before it does any of that.
    ///
    /// # Errors
    /// [`ExecuteError::CommandReused`] when the id was used for another command; [`StoreError`] when the store can't be read.
    pub async fn repeated<E: std::error::Error>(
        &mut self,
        context: &CommandContext,
    ) -> Result<Option<Executed>, ExecuteError<E>> {
        let Some(idempotency) = &context.idempotency else { return Ok(None) };
        match find_command(self.inner.connection(), context.command_id, &idempotency.fingerprint).await? {
            None => Ok(None),
            Some(FoundCommand::Other) => Err(ExecuteError::CommandReused { command_id: context.command_id }),
            Some(FoundCommand::Same(CommandRecord { aggregate_id, version })) => {
                Ok(Some(Executed { aggregate_id, version, appended: 0, repeated: true }))
            }
        }
    }

    /// Decides a command on what is committed and on what this transaction has decided before; its events are appended at commit.
    ///
    /// # Errors
    /// See [`ExecuteError`]; a conflict is only found at commit.
    pub async fn execute<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Executed, ExecuteError<A::Error>> {
        let id = id.uuid();
        if let Some(executed) = self.repeated(context).await? {
            return Ok(executed);
        }
        let loaded = self.load(repository, id).await?;
        if let Some(expected) = context.expected
            && expected != loaded.version
        {
            return Err(ExecuteError::Stale { aggregate: A::NAME, id, expected, actual: loaded.version });
        }
        let events = loaded.state.decide(command).map_err(ExecuteError::Rejected)?;
        let change = Change::new(id, loaded, &events);
        let (expected, loaded) = (change.before, change.after.clone());
        let executed = Executed { aggregate_id: id, version: loaded.version, appended: events.len(), repeated: false };
        if !events.is_empty() || context.idempotency.is_some() {
            let events = events.iter().map(NewEvent::encode).collect::<Result<_, _>>().map_err(StoreError::from)?;
            self.appends.push(Append {
                aggregate: A::NAME,
                aggregate_id: id,
                expected,
                previous: None,
                events,
                context: context.clone(),
            });
            if let Some(states) = repository.states()
                && change.after.version > expected
            {
                let change = Change { id, before: expected, after: loaded.clone(), deleted: change.deleted };
                self.writes.insert((A::NAME, id), Box::new(Written { states: Arc::clone(states), change }));
            }
            let repository = repository.clone();
            self.after_commit.push(Box::new(move || repository.committed(change)));
        }
        self.states.insert((A::NAME, id), Box::new(loaded));
        Ok(executed)
    }

    /// The aggregate as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the store can't be read or an event can't be decoded.
    pub async fn load<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: impl AggregateId<A>,
    ) -> Result<Loaded<A>, StoreError> {
        let id = id.uuid();
        let held = self.states.get(&(A::NAME, id)).and_then(|held| held.downcast_ref::<Loaded<A>>());
        if let Some(held) = held {
            return Ok(held.clone());
        }
        let cached = repository.cached(id);
        let mut fold = if cached.version > Version::ZERO {
            Fold::from(id, cached)
        } else {
            Fold::proving(id, self.kept(repository, id).await?)
        };
        loop {
            visit_on(self.inner.connection(), A::NAME, id, fold.bounds(), &mut |event| fold.take(event)).await?;
            match fold.finish() {
                Some(folded) => return Ok(folded.loaded),
                None => fold = Fold::from(id, Loaded::default()),
            }
        }
    }

    async fn kept<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: Uuid,
    ) -> Result<Loaded<A>, StoreError> {
        let Some(states) = repository.states() else { return Ok(Loaded::default()) };
        Ok(states.get_by_id(self.inner.connection(), id).await?.unwrap_or_default())
    }

    /// Appends what was decided and commits everything.
    ///
    /// # Errors
    /// [`TxError`]; then nothing was committed, unless the connection was lost while committing.
    pub async fn commit(mut self) -> Result<Receipt, TxError> {
        let mut committed: Vec<Arc<Envelope>> = Vec::new();
        if !self.appends.is_empty() {
            if self.durability == Durability::Soon {
                // The relay publishes what it sees; that must not be lost afterwards.
                sqlx::query("set local synchronous_commit to default").execute(self.inner.connection()).await?;
            }
            for (outcome, append) in
                append_batch(self.inner.connection(), &self.appends).await?.into_iter().zip(&self.appends)
            {
                committed.extend(appended(outcome, append)?);
            }
            // Under the store's lock, and only by those who won: the states of an aggregate follow each other as its versions do.
            for write in self.writes.values() {
                write.write(self.inner.connection()).await?;
            }
        }
        match self.inner {
            Inner::Given(transaction) => transaction.commit().await?,
            Inner::Opened(open) => open.commit().await?,
        }
        for action in self.after_commit {
            action();
        }
        let Some(last) = committed.last() else { return Ok(Receipt::default()) };
        self.store.committed(last.position);
        Ok(self.store.local().committed(&committed))
    }

    /// Undoes everything; dropping the transaction does the same, later.
    ///
    /// # Errors
    /// When the database can't be reached; then it undoes it by itself.
    pub async fn rollback(self) -> Result<(), TxError> {
        match self.inner {
            Inner::Given(transaction) => transaction.rollback().await?,
            Inner::Opened(open) => open.rollback().await?,
        }
        Ok(())
    }
}

fn appended(outcome: Outcome, append: &Append) -> Result<Vec<Arc<Envelope>>, TxError> {
    match outcome {
        Outcome::Committed(events) => Ok(events),
        Outcome::Conflict(actual) => Err(TxError::Conflict {
            aggregate: append.aggregate,
            id: append.aggregate_id,
            expected: append.expected,
            actual,
        }),
        Outcome::Repeated(_) | Outcome::Reused => Err(TxError::Repeated { command_id: append.context.command_id }),
    }
}
