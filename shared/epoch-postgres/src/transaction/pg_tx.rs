//! A transaction over several aggregates of a service and its own tables.
//!
//! Everything done through a [`PgTx`] commits together: events, states and the caller's rows. Events are appended last,
//! so that the store's lock is held only during the commit. A conflict rolls everything back, and the whole body runs
//! again.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use epoch::{
    Aggregate, AggregateId, CommandContext, Envelope, ExecuteError, ExecutionOutcome, Repository, Version,
    VersionedState,
    fast_path::Receipt,
    fold::Fold,
    repository::Decision,
    state::Change,
    store::{Append, StoreError},
};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    database::begin::OpenTransaction,
    store::{
        append::{AppendResult, append_batch},
        commands::find_command,
        pg_store::PgStore,
        streams::visit_stream,
    },
    transaction::{
        durability::Durability,
        error::TxError,
        state_write::{PendingStateWrite, StateWrite},
    },
};

/// Aggregate name and id.
type AggregateKey = (&'static str, Uuid);

/// An open transaction.
pub struct PgTx {
    inner: SqlTransaction,
    store: PgStore,
    /// The state of each aggregate after the commands of this transaction.
    states: HashMap<AggregateKey, Box<dyn Any + Send + Sync>>,
    appends: Vec<Append>,
    /// The states to write on commit, the latest of each aggregate.
    state_writes: BTreeMap<AggregateKey, Box<dyn StateWrite>>,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
    durability: Durability,
}

/// The transaction on the database, by the way it was opened.
pub(super) enum SqlTransaction {
    Sqlx(Transaction<'static, Postgres>),
    Batched(OpenTransaction),
}

impl SqlTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Sqlx(transaction) => transaction,
            Self::Batched(transaction) => transaction.connection(),
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlx(transaction) => transaction.commit().await,
            Self::Batched(transaction) => transaction.commit().await,
        }
    }

    async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlx(transaction) => transaction.rollback().await,
            Self::Batched(transaction) => transaction.rollback().await,
        }
    }
}

impl PgTx {
    pub(super) fn new(store: PgStore, inner: SqlTransaction, durability: Durability) -> Self {
        Self {
            inner,
            store,
            states: HashMap::new(),
            appends: Vec::new(),
            state_writes: BTreeMap::new(),
            after_commit: Vec::new(),
            durability,
        }
    }

    /// Returns the connection, for the caller's own tables.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.inner.connection()
    }

    /// Returns the stored result of an earlier execution of this command id, or `None` if there is none.
    ///
    /// [`PgTx::execute`] checks this itself. A transaction that does more than this one command (draws a number,
    /// chooses an aggregate) calls it first.
    ///
    /// # Errors
    /// [`ExecuteError::CommandReused`] when the id belongs to another command; [`StoreError`] when the store can't be
    /// read.
    pub async fn find_repeated<E: std::error::Error>(
        &mut self,
        context: &CommandContext,
    ) -> Result<Option<ExecutionOutcome>, ExecuteError<E>> {
        let Some(idempotency) = &context.idempotency else { return Ok(None) };
        let connection = self.inner.connection();
        let lookup = find_command(connection, context.command_id, &idempotency.fingerprint).await?;
        ExecutionOutcome::of_lookup(lookup, context.command_id)
    }

    /// Decides a command on the committed state and the earlier decisions of this transaction. The events are appended
    /// by [`PgTx::commit`].
    ///
    /// # Errors
    /// See [`ExecuteError`]. A conflict is detected only by [`PgTx::commit`].
    pub async fn execute<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: impl AggregateId<A>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<ExecutionOutcome, ExecuteError<A::Error>> {
        let id = id.uuid();
        if let Some(executed) = self.find_repeated(context).await? {
            return Ok(executed);
        }
        let loaded = self.load(repository, id).await?;
        let Decision { append, change } = Decision::on_state(id, loaded, None, command, context)?;
        let after = change.after.clone();
        let appended = append.as_ref().map_or(0, |append| append.events.len());
        if let Some(append) = append {
            self.appends.push(append);
            self.write_on_commit(repository, change);
        }
        let version = after.version;
        self.states.insert((A::NAME, id), Box::new(after));
        Ok(ExecutionOutcome { aggregate_id: id, version, appended, repeated: false })
    }

    /// Registers a decided change: its state row, and the notice to the repository after the commit.
    fn write_on_commit<A: Aggregate>(&mut self, repository: &Repository<A, PgStore>, change: Change<A>) {
        if let Some(states) = repository.states()
            && change.after.version > change.before
        {
            let Change { id, before, deleted, .. } = change;
            let change = Change { id, before, after: change.after.clone(), deleted };
            let write = PendingStateWrite { states: Arc::clone(states), change };
            self.state_writes.insert((A::NAME, id), Box::new(write));
        }
        let repository = repository.clone();
        self.after_commit.push(Box::new(move || repository.record_commit(change)));
    }

    /// Returns the aggregate as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the store can't be read or an event can't be decoded.
    pub async fn load<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: impl AggregateId<A>,
    ) -> Result<VersionedState<A>, StoreError> {
        let id = id.uuid();
        let decided = self.states.get(&(A::NAME, id)).and_then(|state| state.downcast_ref::<VersionedState<A>>());
        if let Some(decided) = decided {
            return Ok(decided.clone());
        }
        let cached = repository.cached(id);
        let mut fold = if cached.version > Version::ZERO {
            Fold::from(id, cached)
        } else {
            Fold::verifying(id, self.stored_state(repository, id).await?)
        };
        loop {
            visit_stream(self.inner.connection(), A::NAME, id, fold.bounds(), &mut |event| fold.take(event)).await?;
            match fold.finish() {
                Some(folded) => return Ok(folded.state),
                // The log does not confirm the stored state, so fold the whole stream.
                None => fold = Fold::from(id, VersionedState::default()),
            }
        }
    }

    async fn stored_state<A: Aggregate>(
        &mut self,
        repository: &Repository<A, PgStore>,
        id: Uuid,
    ) -> Result<VersionedState<A>, StoreError> {
        let Some(states) = repository.states() else { return Ok(VersionedState::default()) };
        Ok(states.get_by_id(self.inner.connection(), id).await?.unwrap_or_default())
    }

    /// Appends the decided events and commits everything.
    ///
    /// # Errors
    /// [`TxError`]; nothing was committed then, unless the connection was lost during the commit.
    pub async fn commit(mut self) -> Result<Receipt, TxError> {
        let mut committed: Vec<Arc<Envelope>> = Vec::new();
        if !self.appends.is_empty() {
            if self.durability == Durability::Deferred {
                // The relay publishes committed events at once, so they must be on disk by then.
                sqlx::query("set local synchronous_commit to default").execute(self.inner.connection()).await?;
            }
            let outcomes = append_batch(self.inner.connection(), &self.appends).await?;
            for (outcome, append) in outcomes.into_iter().zip(&self.appends) {
                committed.extend(committed_events(outcome, append)?);
            }
            // Written under the store's lock and only without a conflict: states follow in the order of the versions.
            for write in self.state_writes.values() {
                write.write(self.inner.connection()).await?;
            }
        }
        self.inner.commit().await?;
        for action in self.after_commit {
            action();
        }
        Ok(if committed.is_empty() { Receipt::default() } else { self.store.announce(&committed) })
    }

    /// Rolls everything back. Dropping the transaction does the same, before the next use of the connection.
    ///
    /// # Errors
    /// When the database can't be reached; the server then rolls back when it notices.
    pub async fn rollback(self) -> Result<(), TxError> {
        Ok(self.inner.rollback().await?)
    }
}

fn committed_events(outcome: AppendResult, append: &Append) -> Result<Vec<Arc<Envelope>>, TxError> {
    match outcome {
        AppendResult::Committed(events) => Ok(events),
        AppendResult::Conflict(actual) => Err(TxError::Conflict {
            aggregate: append.aggregate,
            id: append.aggregate_id,
            expected: append.expected,
            actual,
        }),
        AppendResult::Repeated(_) | AppendResult::Reused => {
            Err(TxError::Repeated { command_id: append.context.command_id })
        }
    }
}
