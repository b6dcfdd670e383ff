//! Keys of subjects, and the keys they are wrapped with.
//!
//! The problem: whoever steals the database must not have the keys, and a master key must be replaceable.
//!
//! The invariant: a store only ever holds wrapped keys; a wrapped key is bound to its id and its subject, so that rows
//! can't be exchanged. Which master key wrapped it stands beside it, so that old ones serve until everything is wrapped
//! anew.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{store::StoreError, timestamp::Timestamp};

pub(super) const NONCE: usize = 24;

/// The key of one subject; wiped from memory when it is dropped.
pub(super) type PlainKey = Zeroizing<[u8; 32]>;

/// A subject's key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Names the key; it stands in every value sealed with it.
    pub id: Uuid,
    /// Whose it is.
    pub subject: Uuid,
    /// The number of the master key it is wrapped with.
    pub master: u32,
    /// Nonce and ciphertext.
    pub wrapped: Vec<u8>,
}

/// What a store knows of a subject or of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectKey {
    /// The key.
    Present(WrappedKey),
    /// The tombstone: there was a key, or there must not be one.
    Forgotten {
        /// Since when.
        at: Timestamp,
    },
}

/// Why a key store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyStoreError {
    /// The database gave no answer.
    #[error("key store: {0}")]
    Store(#[from] StoreError),
}

/// Keeps the keys of subjects; at most one a subject, for ever.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// What is known of a subject; `None` when it never had a key.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn of_subject(&self, subject: Uuid) -> Result<Option<SubjectKey>, KeyStoreError>;

    /// What is known of a key, also when its subject has been forgotten; `None` when there never was such a key.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn by_id(&self, key: Uuid) -> Result<Option<SubjectKey>, KeyStoreError>;

    /// Keeps a key if its subject has none and isn't forgotten; gives what is there afterwards.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn insert(&self, key: &WrappedKey) -> Result<SubjectKey, KeyStoreError>;

    /// Destroys a subject's key and leaves a tombstone, also when there was no key. Done again it changes nothing.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn forget(&self, subject: Uuid, at: Timestamp) -> Result<(), KeyStoreError>;

    /// Up to `limit` keys that are wrapped with another master key than `master`.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn wrapped_otherwise(&self, master: u32, limit: u32) -> Result<Vec<WrappedKey>, KeyStoreError>;

    /// Replaces `old` by the same key wrapped anew, if it is still there as it was.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    async fn rewrap(&self, old: &WrappedKey, new: &WrappedKey) -> Result<bool, KeyStoreError>;
}

/// A key that wraps keys. It comes from the configuration and is nowhere else.
#[derive(Clone)]
pub struct MasterKey {
    number: u32,
    key: PlainKey,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MasterKey({})", self.number)
    }
}

/// Text that is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a master key is its number, a colon and 64 hexadecimal digits")]
pub struct MasterKeyError;

impl MasterKey {
    /// The master key with this number; numbers are never used again for another key.
    #[must_use]
    pub fn new(number: u32, key: [u8; 32]) -> Self {
        Self { number, key: Zeroizing::new(key) }
    }
}

impl std::str::FromStr for MasterKey {
    type Err = MasterKeyError;

    /// As it stands in the configuration: `1:00112233…`.
    fn from_str(text: &str) -> Result<Self, MasterKeyError> {
        let (number, digits) = text.trim().split_once(':').ok_or(MasterKeyError)?;
        let number = number.parse().map_err(|_| MasterKeyError)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(MasterKeyError);
        }
        let mut key = Zeroizing::new([0; 32]);
        for (index, byte) in key.iter_mut().enumerate() {
            let digits = digits.get(2 * index..2 * index + 2).ok_or(MasterKeyError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| MasterKeyError)?;
        }
        Ok(Self { number, key })
    }
}

/// Today's master key, and earlier ones that some keys are still wrapped with.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    today: u32,
    keys: BTreeMap<u32, MasterKey>,
}

impl MasterKeys {
    /// Wraps with `today`, unwraps with any.
    #[must_use]
    pub fn new(today: MasterKey, earlier: impl IntoIterator<Item = MasterKey>) -> Self {
        let number = today.number;
        let mut keys: BTreeMap<u32, MasterKey> = earlier.into_iter().map(|key| (key.number, key)).collect();
        keys.insert(number, today);
        Self { today: number, keys }
    }

    /// The number of the one that wraps.
    #[must_use]
    pub fn today(&self) -> u32 {
        self.today
    }

    pub(super) fn wrap(&self, id: Uuid, subject: Uuid, key: &PlainKey) -> Option<WrappedKey> {
        let master = self.keys.get(&self.today)?;
        let wrapped = encrypt(&master.key, &bound("epoch key", id, subject), key.as_slice())?;
        Some(WrappedKey { id, subject, master: self.today, wrapped })
    }

    /// `None` when it can't be unwrapped; whether the master key is known at all is asked before.
    pub(super) fn unwrap_key(&self, key: &WrappedKey) -> Option<PlainKey> {
        let master = self.keys.get(&key.master)?;
        let plain = Zeroizing::new(decrypt(&master.key, &bound("epoch key", key.id, key.subject), &key.wrapped)?);
        Some(Zeroizing::new(plain.as_slice().try_into().ok()?))
    }

    pub(super) fn knows(&self, master: u32) -> bool {
        self.keys.contains_key(&master)
    }
}

pub(super) fn new_key() -> Option<PlainKey> {
    Key::try_generate().ok().map(|key| Zeroizing::new(key.into()))
}

/// What a ciphertext is bound to: it can't be opened as anything else.
pub(super) fn bound(purpose: &str, key: Uuid, subject: Uuid) -> Vec<u8> {
    [purpose.as_bytes(), key.as_bytes(), subject.as_bytes()].concat()
}

/// A new random nonce, then ciphertext and tag; 24 bytes of nonce never meet by chance.
pub(super) fn encrypt(key: &PlainKey, bound: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new(&Key::from(**key));
    let nonce = XNonce::try_generate().ok()?;
    let ciphertext = cipher.encrypt(&nonce, Payload { msg: plain, aad: bound }).ok()?;
    Some([nonce.as_slice(), &ciphertext].concat())
}

pub(super) fn decrypt(key: &PlainKey, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
    let cipher = XChaCha20Poly1305::new(&Key::from(**key));
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: bound }).ok()
}
