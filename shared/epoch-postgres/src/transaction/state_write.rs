//! Aggregate states that a transaction writes when it commits.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    Aggregate,
    state::{Change, StateStore},
    store::StoreError,
};
use sqlx::PgConnection;

/// A state write without the type of its aggregate.
#[async_trait]
pub(crate) trait StateWrite: Send + Sync {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), StoreError>;
}

/// A change of an aggregate and the store of its state.
pub(crate) struct PendingStateWrite<A> {
    pub(crate) states: Arc<dyn StateStore<A, PgConnection>>,
    pub(crate) change: Change<A>,
}

#[async_trait]
impl<A: Aggregate> StateWrite for PendingStateWrite<A> {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.change.write(&*self.states, connection).await
    }
}
