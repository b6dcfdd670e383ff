//! States that commit with their events.
//!
//! The problem and the invariants are those of [`epoch::state`]. Here they are kept so: the events are appended first, under
//! the store's lock, and only when they won is the state written, in the same transaction. So states are written one after the
//! other, in the order of the versions, and a loser writes none; the lock is held for that one statement more.

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use epoch::{
    Aggregate, Version,
    cache::Loaded,
    state::{Change, StateStore, decode_state, encode_state},
    store::{Append, Appended, StoreError},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::{count, number},
    store::append::{Outcome, append_batch},
    store::pg_store::PgStore,
};

/// How long a transaction with a state may take before it is given up.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

impl PgStore {
    /// Appends, and when that won writes the state, in one transaction.
    pub(crate) async fn append_and_write<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, PgConnection>,
        change: &Change<A>,
    ) -> Result<Appended, StoreError> {
        let transaction = async {
            let mut transaction =
                crate::database::connect::begin(self.pool(), "begin").await.map_err(|error| store_error(&error))?;
            let outcome = append_batch(&mut transaction, std::slice::from_ref(&append)).await?.pop();
            // Whatever isn't committed is rolled back when the transaction is dropped.
            match outcome {
                Some(Outcome::Committed(events)) => {
                    change.write(states, &mut *transaction).await?;
                    transaction.commit().await.map_err(|error| store_error(&error))?;
                    if let Some(last) = events.last() {
                        self.committed(last.position);
                    }
                    let receipt = self.local().committed(&events);
                    Ok(Appended::Committed { events, receipt })
                }
                Some(Outcome::Conflict(actual)) => Ok(Appended::Conflict { actual }),
                Some(Outcome::Repeated(record)) => Ok(Appended::Repeated(record)),
                Some(Outcome::Reused) => Ok(Appended::Reused),
                None => Err(StoreError::Refused { detail: "no answer to an append".to_owned() }),
            }
        };
        tokio::time::timeout(LIMIT, transaction)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable { detail: "append timed out".to_owned() }))
    }
}

/// A state to be written with a transaction's events.
#[async_trait]
pub(crate) trait WriteState: Send + Sync {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), StoreError>;
}

/// The change and where it goes.
pub(crate) struct Written<A> {
    pub(crate) states: Arc<dyn StateStore<A, PgConnection>>,
    pub(crate) change: Change<A>,
}

#[async_trait]
impl<A: Aggregate> WriteState for Written<A> {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.change.write(&*self.states, connection).await
    }
}

pub(crate) const GET_STATE: &str =
    "select version, schema, state from states where aggregate_id = $1 and aggregate = $2";

pub(crate) const PUT_STATE: &str = "insert into states (aggregate_id, aggregate, version, schema, state) \
     values ($1, $2, $3, $4, $5) on conflict (aggregate_id, aggregate) do update \
     set version = excluded.version, schema = excluded.schema, state = excluded.state";

pub(crate) const DELETE_STATE: &str = "delete from states where aggregate_id = $1 and aggregate = $2";

/// Keeps states as JSON in the table `states`, for aggregates that need no tables of their own.
pub struct PgBlobStates<A> {
    kind: PhantomData<fn() -> A>,
}

impl<A> PgBlobStates<A> {
    /// The states of one kind of aggregate.
    #[must_use]
    pub fn new() -> Self {
        Self { kind: PhantomData }
    }
}

impl<A> Default for PgBlobStates<A> {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl<A: Aggregate> StateStore<A, PgConnection> for PgBlobStates<A> {
    async fn get_by_id(&self, executor: &mut PgConnection, id: Uuid) -> Result<Option<Loaded<A>>, StoreError> {
        let row = sqlx::query(GET_STATE).bind(id).bind(A::NAME).fetch_optional(executor).await;
        let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
        let columns =
            || -> Result<(i64, i64, &[u8]), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
        let (version, schema, state) = columns().map_err(|error| store_error(&error))?;
        let version = Version::new(count(version)?);
        let state = u32::try_from(schema).ok().and_then(|schema| decode_state(schema, state));
        Ok(state.map(|state| Loaded { state: Arc::new(state), version }))
    }

    async fn persist(&self, executor: &mut PgConnection, id: Uuid, state: &Loaded<A>) -> Result<(), StoreError> {
        let query = sqlx::query(PUT_STATE)
            .bind(id)
            .bind(A::NAME)
            .bind(number(state.version.get()))
            .bind(i64::from(A::STATE_SCHEMA))
            .bind(encode_state(&*state.state)?);
        query.execute(executor).await.map_err(|error| store_error(&error))?;
        Ok(())
    }

    async fn delete(&self, executor: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
        let deleted = sqlx::query(DELETE_STATE).bind(id).bind(A::NAME).execute(executor).await;
        deleted.map_err(|error| store_error(&error))?;
        Ok(())
    }
}
