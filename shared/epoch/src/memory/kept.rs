//! States and snapshots in memory.
//!
//! The problem and the invariants are those of [`state`](crate::state) and [`snapshot`](crate::snapshot).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::lock;
use crate::{
    aggregate::Aggregate,
    cache::Loaded,
    snapshot::{Snapshot, SnapshotStore},
    state::StateStore,
    store::StoreError,
};

/// A state store in memory; its clones share the states.
#[derive(Debug, Clone)]
pub struct MemoryStates<A> {
    states: Arc<Mutex<HashMap<Uuid, Loaded<A>>>>,
}

impl<A> Default for MemoryStates<A> {
    fn default() -> Self {
        Self { states: Arc::default() }
    }
}

impl<A: Aggregate> MemoryStates<A> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl<A: Aggregate> StateStore<A, ()> for MemoryStates<A> {
    async fn get_by_id(&self, (): &mut (), id: Uuid) -> Result<Option<Loaded<A>>, StoreError> {
        Ok(lock(&self.states).get(&id).cloned())
    }

    async fn persist(&self, (): &mut (), id: Uuid, state: &Loaded<A>) -> Result<(), StoreError> {
        lock(&self.states).insert(id, state.clone());
        Ok(())
    }

    async fn delete(&self, (): &mut (), id: Uuid) -> Result<(), StoreError> {
        lock(&self.states).remove(&id);
        Ok(())
    }
}

/// Snapshots in memory; its clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySnapshots {
    snapshots: Arc<Mutex<BTreeMap<(&'static str, Uuid), Snapshot>>>,
}

impl MemorySnapshots {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        Ok(lock(&self.snapshots).get(&(aggregate, id)).cloned())
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let mut kept = lock(&self.snapshots);
        for snapshot in snapshots {
            let key = (snapshot.aggregate, snapshot.id);
            if kept.get(&key).is_none_or(|known| known.version <= snapshot.version) {
                kept.insert(key, snapshot.clone());
            }
        }
        Ok(())
    }

    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError> {
        lock(&self.snapshots).remove(&(aggregate, id));
        Ok(())
    }
}
