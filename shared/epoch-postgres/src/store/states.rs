//! Aggregate states as JSON in the table `states`.

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use epoch::{
    Aggregate, VersionedState,
    state::{StateStore, decode_state, encode_state},
    store::StoreError,
};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::database::{
    error::store_error,
    rows::{bigint, version},
};

pub(crate) const GET_STATE: &str =
    "select version, schema, state from states where aggregate_id = $1 and aggregate = $2";
pub(crate) const PUT_STATE: &str = include_str!("sql/put_state.sql");
pub(crate) const DELETE_STATE: &str = "delete from states where aggregate_id = $1 and aggregate = $2";

/// Stores states as JSON in the table `states`, for aggregates without tables of their own.
pub struct PgBlobStates<A> {
    aggregate: PhantomData<fn() -> A>,
}

impl<A> PgBlobStates<A> {
    /// Creates the state store of one kind of aggregate.
    #[must_use]
    pub fn new() -> Self {
        Self { aggregate: PhantomData }
    }
}

impl<A> Default for PgBlobStates<A> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(FromRow)]
struct StateRow {
    version: i64,
    schema: i64,
    state: Vec<u8>,
}

#[async_trait]
impl<A: Aggregate> StateStore<A, PgConnection> for PgBlobStates<A> {
    async fn get_by_id(&self, executor: &mut PgConnection, id: Uuid) -> Result<Option<VersionedState<A>>, StoreError> {
        let row = sqlx::query_as(GET_STATE).bind(id).bind(A::NAME).fetch_optional(executor).await;
        let row: Option<StateRow> = row.map_err(|error| store_error(&error))?;
        let Some(row) = row else { return Ok(None) };
        let version = version(row.version)?;
        let state = u32::try_from(row.schema).ok().and_then(|schema| decode_state(schema, &row.state));
        Ok(state.map(|state| VersionedState { state: Arc::new(state), version }))
    }

    async fn persist(
        &self,
        executor: &mut PgConnection,
        id: Uuid,
        state: &VersionedState<A>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(PUT_STATE)
            .bind(id)
            .bind(A::NAME)
            .bind(bigint(state.version.get()))
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
