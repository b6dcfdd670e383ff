//! An in-memory key store for tests and examples. It behaves like a durable one, without durability.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::key_store::{KeyStore, KeyStoreError, SubjectKey, WrappedKey};
use crate::time::timestamp::Timestamp;

#[derive(Default)]
struct Keys {
    subjects: HashMap<Uuid, SubjectKey>,
    /// The subject of each key, also of destroyed ones.
    owners: HashMap<Uuid, Uuid>,
}

/// An in-memory key store.
#[derive(Default)]
pub struct MemoryKeyStore {
    keys: Mutex<Keys>,
}

impl MemoryKeyStore {
    /// Creates an empty key store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A poisoned lock is safe to use: a panic between the inserts of a change is impossible.
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn of_subject(&self, subject: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        Ok(self.lock().subjects.get(&subject).cloned())
    }

    async fn by_id(&self, key: Uuid) -> Result<Option<SubjectKey>, KeyStoreError> {
        let keys = self.lock();
        Ok(keys.owners.get(&key).and_then(|subject| keys.subjects.get(subject)).cloned())
    }

    async fn insert(&self, key: &WrappedKey) -> Result<SubjectKey, KeyStoreError> {
        let mut keys = self.lock();
        if let Some(present) = keys.subjects.get(&key.subject) {
            return Ok(present.clone());
        }
        let present = SubjectKey::Present(key.clone());
        keys.owners.insert(key.id, key.subject);
        keys.subjects.insert(key.subject, present.clone());
        Ok(present)
    }

    async fn forget(&self, subject: Uuid, at: Timestamp) -> Result<(), KeyStoreError> {
        let mut keys = self.lock();
        if !matches!(keys.subjects.get(&subject), Some(SubjectKey::Forgotten { .. })) {
            keys.subjects.insert(subject, SubjectKey::Forgotten { at });
        }
        Ok(())
    }

    async fn keys_to_rewrap(&self, master: u32, limit: u32) -> Result<Vec<WrappedKey>, KeyStoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let keys = self.lock();
        let wrapped = keys.subjects.values().filter_map(|key| match key {
            SubjectKey::Present(key) if key.master != master => Some(key.clone()),
            _ => None,
        });
        Ok(wrapped.take(limit).collect())
    }

    async fn rewrap(&self, old: &WrappedKey, new: &WrappedKey) -> Result<bool, KeyStoreError> {
        let mut keys = self.lock();
        let Some(present) = keys.subjects.get_mut(&old.subject) else { return Ok(false) };
        if *present != SubjectKey::Present(old.clone()) {
            return Ok(false);
        }
        *present = SubjectKey::Present(new.clone());
        Ok(true)
    }
}
