//! Storage of the subjects' keys.
//!
//! A store contains wrapped keys only, so that stealing the database does not reveal a key. Each wrapped key names its
//! master key, so that an old master key stays usable until all keys are wrapped with the new one.

use async_trait::async_trait;
use uuid::Uuid;

use crate::{store::StoreError, time::timestamp::Timestamp};

/// A subject's encrypted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The key's id, which every value sealed with it contains.
    pub id: Uuid,
    /// The subject's id.
    pub subject: Uuid,
    /// The number of the master key that wraps the key.
    pub master: u32,
    /// Nonce and ciphertext.
    pub wrapped: Vec<u8>,
}

/// The key of a subject, or its tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectKey {
    /// The subject's wrapped key.
    Present(WrappedKey),
    /// The key was destroyed, and the subject must not get another one.
    Forgotten {
        /// When the subject was forgotten.
        at: Timestamp,
    },
}

/// Why a key store operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyStoreError {
    /// The database failed.
    #[error("key store: {0}")]
    Store(#[from] StoreError),
}

/// Stores at most one key per subject, ever.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Returns the key or tombstone of a subject, or `None` if it never had a key.
    ///
    /// # Errors
    /// [`KeyStoreError`] when reading fails.
    async fn of_subject(&self, subject: Uuid) -> Result<Option<SubjectKey>, KeyStoreError>;

    /// Returns the key with this id, its subject's tombstone, or `None` if there never was such a key.
    ///
    /// # Errors
    /// [`KeyStoreError`] when reading fails.
    async fn by_id(&self, key: Uuid) -> Result<Option<SubjectKey>, KeyStoreError>;

    /// Inserts a key unless its subject has a key or a tombstone. Returns the stored entry.
    ///
    /// # Errors
    /// [`KeyStoreError`] when writing fails.
    async fn insert(&self, key: &WrappedKey) -> Result<SubjectKey, KeyStoreError>;

    /// Destroys a subject's key and stores a tombstone, also when there was no key. Idempotent.
    ///
    /// # Errors
    /// [`KeyStoreError`] when writing fails.
    async fn forget(&self, subject: Uuid, at: Timestamp) -> Result<(), KeyStoreError>;

    /// Returns up to `limit` keys that another master key than `master` wraps.
    ///
    /// # Errors
    /// [`KeyStoreError`] when reading fails.
    async fn keys_to_rewrap(&self, master: u32, limit: u32) -> Result<Vec<WrappedKey>, KeyStoreError>;

    /// Replaces `old` by `new` if `old` is still stored. Returns whether it was replaced.
    ///
    /// # Errors
    /// [`KeyStoreError`] when writing fails.
    async fn rewrap(&self, old: &WrappedKey, new: &WrappedKey) -> Result<bool, KeyStoreError>;
}
