//! An in-memory [snapshot store](crate::snapshot).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::lock::lock;
use crate::store::{
    StoreError,
    snapshot::{Snapshot, SnapshotStore},
};

/// A snapshot store in memory. Clones share the snapshots.
#[derive(Debug, Clone, Default)]
pub struct MemorySnapshotStore {
    snapshots: Arc<Mutex<BTreeMap<(&'static str, Uuid), Snapshot>>>,
}

impl MemorySnapshotStore {
    /// Creates an empty snapshot store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshotStore {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        Ok(lock(&self.snapshots).get(&(aggregate, id)).cloned())
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let mut stored = lock(&self.snapshots);
        for snapshot in snapshots {
            let key = (snapshot.aggregate, snapshot.id);
            if stored.get(&key).is_none_or(|present| present.version <= snapshot.version) {
                stored.insert(key, snapshot.clone());
            }
        }
        Ok(())
    }

    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError> {
        lock(&self.snapshots).remove(&(aggregate, id));
        Ok(())
    }
}
