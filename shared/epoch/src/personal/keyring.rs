//! Sealing and opening values.
//!
//! Keys are cached, because every row of a read model needs one. A cached key expires after its time to live, so that a
//! subject forgotten in another process becomes unreadable within that time.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    cipher::{NONCE, PlainKey, associated_data, decrypt, encrypt, generate_key},
    key_store::{KeyStore, KeyStoreError, SubjectKey, WrappedKey},
    master_key::MasterKeys,
    sealed::{Opened, Sealed},
};
use crate::time::clock::{Clock, SystemClock};

/// The maximum length of a value in bytes of JSON.
pub const MAX_BYTES: usize = 64 * 1024;

/// The version byte of the stored format.
const VERSION: u8 = 1;
/// Associated data of sealed values; part of the stored format.
const VALUE_PURPOSE: &str = "epoch sealed 1";
const CACHE_CAPACITY: u64 = 10_000;
const TIME_TO_LIVE: Duration = Duration::from_secs(30);
/// How many keys one round of [`Keyring::rewrap`] reads.
const PAGE: u32 = 500;

/// Why a value could not be sealed or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyringError {
    /// The key store failed.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The subject was forgotten; no further value can be sealed for it.
    #[error("subject {subject} has been forgotten")]
    Forgotten {
        /// The subject's id.
        subject: Uuid,
    },
    /// The store never had the key.
    #[error("unknown key {key}")]
    UnknownKey {
        /// The key's id.
        key: Uuid,
    },
    /// The configuration lacks the key's master key.
    #[error("key {key} is wrapped with master key {master}, which is not configured")]
    UnknownMaster {
        /// The wrapped key's id.
        key: Uuid,
        /// The master key's number.
        master: u32,
    },
    /// The value or the key was altered, or the master key is wrong.
    #[error("decrypting with key {key} failed: altered value or key, or wrong master key")]
    Damaged {
        /// The key's id.
        key: Uuid,
    },
    /// The bytes are not a sealed value of a supported version.
    #[error("not a sealed value: {bytes} bytes, version {version:?}")]
    NotSealed {
        /// The number of bytes.
        bytes: usize,
        /// The first byte.
        version: Option<u8>,
    },
    /// The value has no JSON form, has another type than requested, or is too long.
    #[error("invalid value: {detail}")]
    Value {
        /// The cause.
        detail: String,
    },
    /// The system provides no random numbers.
    #[error("random number generator failed")]
    Random,
}

#[derive(Clone)]
struct CachedKey {
    id: Uuid,
    subject: Uuid,
    key: Arc<PlainKey>,
}

/// Seals and opens values. Clones share the key cache.
#[derive(Clone)]
pub struct Keyring {
    store: Arc<dyn KeyStore>,
    masters: Arc<MasterKeys>,
    clock: Arc<dyn Clock>,
    by_id: Cache<Uuid, CachedKey>,
    by_subject: Cache<Uuid, CachedKey>,
}

fn cache(time_to_live: Duration) -> Cache<Uuid, CachedKey> {
    Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(time_to_live).build()
}

impl Keyring {
    /// Creates a keyring that caches 10,000 keys for 30 s.
    pub fn new(store: Arc<dyn KeyStore>, masters: MasterKeys) -> Self {
        Self {
            store,
            masters: Arc::new(masters),
            clock: Arc::new(SystemClock),
            by_id: cache(TIME_TO_LIVE),
            by_subject: cache(TIME_TO_LIVE),
        }
    }

    /// Sets how long keys are cached, and so how long a subject forgotten elsewhere stays readable here; zero disables
    /// the cache.
    #[must_use]
    pub fn with_time_to_live(mut self, time_to_live: Duration) -> Self {
        self.by_id = cache(time_to_live);
        self.by_subject = cache(time_to_live);
        self
    }

    /// Seals a value for its subject. Creates the subject's key if it has none.
    ///
    /// # Errors
    /// [`KeyringError::Forgotten`] when the subject was forgotten; other [`KeyringError`]s when the value is too long
    /// or keys cannot be read or written.
    pub async fn seal<T: Serialize + Sync>(&self, subject: Uuid, value: &T) -> Result<Sealed<T>, KeyringError> {
        let plain = serde_json::to_vec(value).map_err(|error| KeyringError::Value { detail: error.to_string() })?;
        let plain = Zeroizing::new(plain);
        if plain.len() > MAX_BYTES {
            let detail = format!("{} bytes of JSON, the limit is {MAX_BYTES}", plain.len());
            return Err(KeyringError::Value { detail });
        }
        let cached = self.key_of(subject).await?;
        let associated_data = associated_data(VALUE_PURPOSE, cached.id, subject);
        let sealed = encrypt(&cached.key, &associated_data, &plain).ok_or(KeyringError::Random)?;
        Ok(Sealed::from_bytes([&[VERSION], cached.id.as_bytes().as_slice(), &sealed].concat().into()))
    }

    /// Opens a value. Returns [`Opened::Forgotten`] when its subject was forgotten.
    ///
    /// # Errors
    /// [`KeyringError`] when the value cannot be decrypted or its key cannot be read.
    pub async fn open<T: DeserializeOwned>(&self, sealed: &Sealed<T>) -> Result<Opened<T>, KeyringError> {
        let (id, ciphertext) = parse(sealed.as_bytes())?;
        let Some(cached) = self.key_by_id(id).await? else { return Ok(Opened::Forgotten) };
        let associated_data = associated_data(VALUE_PURPOSE, id, cached.subject);
        let plain = decrypt(&cached.key, &associated_data, ciphertext).ok_or(KeyringError::Damaged { key: id })?;
        let plain = Zeroizing::new(plain);
        // Drop the parser's message, because it may quote the value.
        let value = serde_json::from_slice(&plain)
            .map_err(|_| KeyringError::Value { detail: format!("not a {}", std::any::type_name::<T>()) })?;
        Ok(Opened::Value(value))
    }

    /// Forgets a subject permanently. Idempotent.
    ///
    /// # Errors
    /// [`KeyStoreError`] when writing fails; call again.
    pub async fn forget(&self, subject: Uuid) -> Result<(), KeyStoreError> {
        let stored = self.store.of_subject(subject).await?;
        self.store.forget(subject, self.clock.now()).await?;
        self.by_subject.invalidate(&subject);
        if let Some(SubjectKey::Present(key)) = stored {
            self.by_id.invalidate(&key.id);
        }
        Ok(())
    }

    /// Wraps all keys with the current master key and returns the number of rewrapped keys.
    ///
    /// Earlier master keys can then be removed from the configuration. The operation can be interrupted and restarted,
    /// and runs concurrently with all others.
    ///
    /// # Errors
    /// [`KeyringError`] at the first key that cannot be unwrapped.
    pub async fn rewrap(&self) -> Result<u64, KeyringError> {
        let mut wrapped = 0;
        loop {
            let page = self.store.keys_to_rewrap(self.masters.current(), PAGE).await?;
            if page.is_empty() {
                return Ok(wrapped);
            }
            for old in &page {
                let key = self.unwrap_key(old)?;
                let new = self.masters.wrap(old.id, old.subject, &key).ok_or(KeyringError::Random)?;
                wrapped += u64::from(self.store.rewrap(old, &new).await?);
            }
        }
    }

    async fn key_of(&self, subject: Uuid) -> Result<CachedKey, KeyringError> {
        if let Some(cached) = self.by_subject.get(&subject) {
            return Ok(cached);
        }
        let found = match self.store.of_subject(subject).await? {
            Some(found) => found,
            None => {
                let key = generate_key().ok_or(KeyringError::Random)?;
                let wrapped = self.masters.wrap(Uuid::new_v4(), subject, &key).ok_or(KeyringError::Random)?;
                // Another process may have inserted a key first; `insert` returns the stored one.
                self.store.insert(&wrapped).await?
            }
        };
        match found {
            SubjectKey::Present(wrapped) => self.cache_key(&wrapped),
            SubjectKey::Forgotten { .. } => Err(KeyringError::Forgotten { subject }),
        }
    }

    async fn key_by_id(&self, id: Uuid) -> Result<Option<CachedKey>, KeyringError> {
        if let Some(cached) = self.by_id.get(&id) {
            return Ok(Some(cached));
        }
        match self.store.by_id(id).await? {
            Some(SubjectKey::Present(wrapped)) => self.cache_key(&wrapped).map(Some),
            Some(SubjectKey::Forgotten { .. }) => Ok(None),
            None => Err(KeyringError::UnknownKey { key: id }),
        }
    }

    fn cache_key(&self, wrapped: &WrappedKey) -> Result<CachedKey, KeyringError> {
        let cached = CachedKey { id: wrapped.id, subject: wrapped.subject, key: Arc::new(self.unwrap_key(wrapped)?) };
        self.by_id.insert(cached.id, cached.clone());
        self.by_subject.insert(cached.subject, cached.clone());
        Ok(cached)
    }

    fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<PlainKey, KeyringError> {
        if !self.masters.contains(wrapped.master) {
            return Err(KeyringError::UnknownMaster { key: wrapped.id, master: wrapped.master });
        }
        self.masters.unwrap_key(wrapped).ok_or(KeyringError::Damaged { key: wrapped.id })
    }
}

/// Splits a sealed value into the key's id, and nonce with ciphertext.
fn parse(bytes: &[u8]) -> Result<(Uuid, &[u8]), KeyringError> {
    let not_sealed = || KeyringError::NotSealed { bytes: bytes.len(), version: bytes.first().copied() };
    let Some((&VERSION, rest)) = bytes.split_first() else { return Err(not_sealed()) };
    let Some((id, ciphertext)) = rest.split_first_chunk::<16>() else { return Err(not_sealed()) };
    if ciphertext.len() < NONCE {
        return Err(not_sealed());
    }
    Ok((Uuid::from_bytes(*id), ciphertext))
}
