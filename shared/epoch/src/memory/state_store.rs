//! An in-memory [state store](crate::state).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::lock::lock;
use crate::{
    aggregate::{Aggregate, VersionedState},
    store::{StoreError, state::StateStore},
};

/// A state store in memory. Clones share the states.
#[derive(Debug, Clone)]
pub struct MemoryStateStore<A> {
    states: Arc<Mutex<HashMap<Uuid, VersionedState<A>>>>,
}

impl<A> Default for MemoryStateStore<A> {
    fn default() -> Self {
        Self { states: Arc::default() }
    }
}

impl<A: Aggregate> MemoryStateStore<A> {
    /// Creates an empty state store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl<A: Aggregate> StateStore<A, ()> for MemoryStateStore<A> {
    async fn get_by_id(&self, (): &mut (), id: Uuid) -> Result<Option<VersionedState<A>>, StoreError> {
        Ok(lock(&self.states).get(&id).cloned())
    }

    async fn persist(&self, (): &mut (), id: Uuid, state: &VersionedState<A>) -> Result<(), StoreError> {
        lock(&self.states).insert(id, state.clone());
        Ok(())
    }

    async fn delete(&self, (): &mut (), id: Uuid) -> Result<(), StoreError> {
        lock(&self.states).remove(&id);
        Ok(())
    }
}
