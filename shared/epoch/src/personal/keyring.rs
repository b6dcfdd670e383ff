//! Sealing and opening.
//!
//! The problem: every read model row would ask for a key, and every key that is kept longer than it should be is a
//! person who isn't forgotten.
//!
//! The invariant: a key is remembered for no longer than its time to live, in a cache of bounded size; so a forgotten
//! subject is forgotten everywhere after that time and one read of the key store.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Opened, Sealed,
    keys::{
        KeyStore, KeyStoreError, MasterKeys, NONCE, PlainKey, SubjectKey, WrappedKey, bound, decrypt, encrypt, new_key,
    },
};
use crate::clock::{Clock, SystemClock};

/// The most bytes of a value, as JSON.
pub const MAX_BYTES: usize = 64 * 1024;

const VERSION: u8 = 1;
const PURPOSE: &str = "epoch sealed 1";
const KEYS: u64 = 10_000;
const TIME_TO_LIVE: Duration = Duration::from_secs(30);
/// Keys wrapped anew in one go.
const PAGE: u32 = 500;

/// Why a value can't be sealed or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyringError {
    /// The keys can't be read or written now.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// Nothing can be sealed for somebody who has been forgotten.
    #[error("subject {subject} has been forgotten")]
    Forgotten {
        /// Who.
        subject: Uuid,
    },
    /// There never was such a key in this store.
    #[error("key {key} is not known")]
    UnknownKey {
        /// Which.
        key: Uuid,
    },
    /// The configuration lacks a master key.
    #[error("key {key} is wrapped with master key {master}, which is not configured")]
    UnknownMaster {
        /// The wrapped key.
        key: Uuid,
        /// The master key's number.
        master: u32,
    },
    /// The bytes are not what was sealed, or the master key is another one.
    #[error("what is sealed with key {key} can't be opened: it was changed, or the master key is a wrong one")]
    Damaged {
        /// The key.
        key: Uuid,
    },
    /// The bytes are no sealed value of a version known here.
    #[error("not a sealed value: {bytes} bytes, version {version:?}")]
    NotSealed {
        /// How many there are.
        bytes: usize,
        /// The first of them.
        version: Option<u8>,
    },
    /// The value has no JSON, isn't of the type asked for, or is too long.
    #[error("value can't be sealed or read: {detail}")]
    Value {
        /// Why.
        detail: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random,
}

/// A key and whose it is.
#[derive(Clone)]
struct Known {
    id: Uuid,
    subject: Uuid,
    key: Arc<PlainKey>,
}

/// Seals and opens; cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    store: Arc<dyn KeyStore>,
    masters: Arc<MasterKeys>,
    clock: Arc<dyn Clock>,
    by_id: Cache<Uuid, Known>,
    by_subject: Cache<Uuid, Known>,
}

fn cache(time_to_live: Duration) -> Cache<Uuid, Known> {
    Cache::builder().max_capacity(KEYS).time_to_live(time_to_live).build()
}

impl Keyring {
    /// A keyring that remembers 10,000 keys for 30 s.
    pub fn new(store: Arc<dyn KeyStore>, masters: MasterKeys) -> Self {
        Self {
            store,
            masters: Arc::new(masters),
            clock: Arc::new(SystemClock),
            by_id: cache(TIME_TO_LIVE),
            by_subject: cache(TIME_TO_LIVE),
        }
    }

    /// The same with another bound on how long a forgotten subject may still be read here; zero asks the store each
    /// time.
    #[must_use]
    pub fn with_time_to_live(mut self, time_to_live: Duration) -> Self {
        self.by_id = cache(time_to_live);
        self.by_subject = cache(time_to_live);
        self
    }

    /// Seals a value for its subject; makes the subject's key when it has none.
    ///
    /// # Errors
    /// [`KeyringError::Forgotten`] when the subject has been forgotten, and the others.
    pub async fn seal<T: Serialize + Sync>(&self, subject: Uuid, value: &T) -> Result<Sealed<T>, KeyringError> {
        let plain = serde_json::to_vec(value).map_err(|error| KeyringError::Value { detail: error.to_string() })?;
        let plain = Zeroizing::new(plain);
        if plain.len() > MAX_BYTES {
            let detail = format!("{} bytes, at most {MAX_BYTES} are possible", plain.len());
            return Err(KeyringError::Value { detail });
        }
        let known = self.key_of(subject).await?;
        let bound = bound(PURPOSE, known.id, subject);
        let sealed = encrypt(&known.key, &bound, &plain).ok_or(KeyringError::Random)?;
        Ok(Sealed::from_bytes([&[VERSION], known.id.as_bytes().as_slice(), &sealed].concat().into()))
    }

    /// Opens a value, if its subject hasn't been forgotten.
    ///
    /// # Errors
    /// [`KeyringError`]; having been forgotten is none.
    pub async fn open<T: DeserializeOwned>(&self, sealed: &Sealed<T>) -> Result<Opened<T>, KeyringError> {
        let (id, ciphertext) = parse(sealed.as_bytes())?;
        let Some(known) = self.key_by_id(id).await? else { return Ok(Opened::Forgotten) };
        let bound = bound(PURPOSE, id, known.subject);
        let plain = decrypt(&known.key, &bound, ciphertext).ok_or(KeyringError::Damaged { key: id })?;
        let plain = Zeroizing::new(plain);
        // The parser's words may quote the value.
        let value = serde_json::from_slice(&plain)
            .map_err(|_| KeyringError::Value { detail: format!("not a {}", std::any::type_name::<T>()) })?;
        Ok(Opened::Value(value))
    }

    /// Forgets a subject for ever. Done again it changes nothing.
    ///
    /// # Errors
    /// [`KeyStoreError`]; then try again.
    pub async fn forget(&self, subject: Uuid) -> Result<(), KeyStoreError> {
        let known = self.store.of_subject(subject).await?;
        self.store.forget(subject, self.clock.now()).await?;
        self.by_subject.invalidate(&subject);
        if let Some(SubjectKey::Present(key)) = known {
            self.by_id.invalidate(&key.id);
        }
        Ok(())
    }

    /// Wraps all keys with today's master key; afterwards earlier ones may leave the configuration. Can be interrupted
    /// and started again, and run beside everything else. Gives how many it wrapped.
    ///
    /// # Errors
    /// [`KeyringError`] at the first key that can't be unwrapped.
    pub async fn rewrap(&self) -> Result<u64, KeyringError> {
        let mut wrapped = 0;
        loop {
            let page = self.store.wrapped_otherwise(self.masters.today(), PAGE).await?;
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

    async fn key_of(&self, subject: Uuid) -> Result<Known, KeyringError> {
        if let Some(known) = self.by_subject.get(&subject) {
            return Ok(known);
        }
        let found = match self.store.of_subject(subject).await? {
            Some(found) => found,
            None => {
                let key = new_key().ok_or(KeyringError::Random)?;
                let wrapped = self.masters.wrap(Uuid::new_v4(), subject, &key).ok_or(KeyringError::Random)?;
                // Another process may have been faster; then its key counts.
                self.store.insert(&wrapped).await?
            }
        };
        match found {
            SubjectKey::Present(wrapped) => self.remember(&wrapped),
            SubjectKey::Forgotten { .. } => Err(KeyringError::Forgotten { subject }),
        }
    }

    async fn key_by_id(&self, id: Uuid) -> Result<Option<Known>, KeyringError> {
        if let Some(known) = self.by_id.get(&id) {
            return Ok(Some(known));
        }
        match self.store.by_id(id).await? {
            Some(SubjectKey::Present(wrapped)) => self.remember(&wrapped).map(Some),
            Some(SubjectKey::Forgotten { .. }) => Ok(None),
            None => Err(KeyringError::UnknownKey { key: id }),
        }
    }

    fn remember(&self, wrapped: &WrappedKey) -> Result<Known, KeyringError> {
        let known = Known { id: wrapped.id, subject: wrapped.subject, key: Arc::new(self.unwrap_key(wrapped)?) };
        self.by_id.insert(known.id, known.clone());
        self.by_subject.insert(known.subject, known.clone());
        Ok(known)
    }

    fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<PlainKey, KeyringError> {
        if !self.masters.knows(wrapped.master) {
            return Err(KeyringError::UnknownMaster { key: wrapped.id, master: wrapped.master });
        }
        self.masters.unwrap_key(wrapped).ok_or(KeyringError::Damaged { key: wrapped.id })
    }
}

/// The key's id, and nonce and ciphertext.
fn parse(bytes: &[u8]) -> Result<(Uuid, &[u8]), KeyringError> {
    let not_sealed = || KeyringError::NotSealed { bytes: bytes.len(), version: bytes.first().copied() };
    let Some((&VERSION, rest)) = bytes.split_first() else { return Err(not_sealed()) };
    let Some((id, ciphertext)) = rest.split_first_chunk::<16>() else { return Err(not_sealed()) };
    if ciphertext.len() < NONCE {
        return Err(not_sealed());
    }
    Ok((Uuid::from_bytes(*id), ciphertext))
}
