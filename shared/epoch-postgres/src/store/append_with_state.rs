//! Appending an aggregate's events together with its state row.
//!
//! The events are appended first, under the store's lock, and the state is written only without a conflict, in the same
//! transaction. State rows are therefore written in version order, and a conflict writes none. The lock is held for one
//! more statement.

use std::time::Duration;

use epoch::{
    Aggregate,
    state::{Change, StateStore},
    store::{Append, StoreError},
};
use sqlx::{PgConnection, PgPool};

use crate::{
    database::{begin::begin, error::store_error},
    store::append::{AppendResult, append_batch},
};

/// How long the transaction may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Appends and writes the state in one transaction, which is committed only when there is no conflict.
pub(crate) async fn append_with_state<A: Aggregate>(
    pool: &PgPool,
    append: Append,
    states: &dyn StateStore<A, PgConnection>,
    change: &Change<A>,
) -> Result<AppendResult, StoreError> {
    let transaction = async {
        let mut transaction = begin(pool, "begin").await.map_err(|error| store_error(&error))?;
        let outcomes = append_batch(&mut transaction, std::slice::from_ref(&append)).await?;
        let Some(outcome) = outcomes.into_iter().next() else {
            return Err(StoreError::Refused { detail: "append returned no outcome".to_owned() });
        };
        // Without this commit the transaction is rolled back when it is dropped.
        if let AppendResult::Committed(_) = outcome {
            change.write(states, &mut *transaction).await?;
            transaction.commit().await.map_err(|error| store_error(&error))?;
        }
        Ok(outcome)
    };
    tokio::time::timeout(TIMEOUT, transaction)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable { detail: "append timed out".to_owned() }))
}
