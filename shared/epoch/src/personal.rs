//! Personal data in a log that is never changed.
//!
//! The problem: a person may ask to be forgotten, and events are kept for ever, in the store, on the bus and in places
//! nobody remembers.
//!
//! The invariant: what can identify a person is in an event only as a [`Sealed`] field, under a key of that person
//! alone (the *subject*). When the key is destroyed, every copy of every event is unreadable at once
//! (crypto-shredding), and the log is as it was: aggregates fold the same, versions and positions stay.
//!
//! **Use.** Seal before deciding ([`Keyring::seal`]), so that a command carries `Sealed` and the aggregate stays pure;
//! open where it is shown ([`Keyring::open`]) and be ready for [`Opened::Forgotten`]. An aggregate can't look into a
//! sealed field: rules about its content belong before the sealing.
//!
//! **When forgetting takes effect.** At once in the process that does it; in others when their copy of the key is older
//! than [`Keyring::with_time_to_live`] says (30 s unless told). A subject that is forgotten stays so: its tombstone
//! keeps anybody from making a new key in its name, so that a late command can't bring the person back unnoticed.
//! Somebody who comes back is a new subject.
//!
//! **What it doesn't do.** Think of these before you promise anybody to be forgotten:
//! - *Read models* hold what they opened. Either they open when they are asked, or forgetting is also an event that
//!   they delete by; a rebuild afterwards shows "forgotten" in any case.
//! - *Backups of the key table* hold the keys. Keep them apart from those of the log, for as short as the law wants you
//!   to forget in (the same goes for the database's write-ahead log and for rows that are deleted but not vacuumed);
//!   after restoring one, forget again whom you forgot since. Backups of the log need nothing.
//! - *The master key* alone decrypts nothing: a subject's key is random, and only its wrapped form, which is deleted,
//!   could be unwrapped.
//! - *Lengths* aren't hidden: a sealed field is as long as its content and 57 bytes.
//! - Traces, error messages and HTTP logs are not events.

mod keyring;
mod keys;
mod memory;

use std::{fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use keyring::{Keyring, KeyringError, MAX_BYTES};
pub use keys::{KeyStore, KeyStoreError, MasterKey, MasterKeyError, MasterKeys, SubjectKey, WrappedKey};
pub use memory::MemoryKeyStore;

/// A value that only the holder of its subject's key can read. An Avro `bytes`:
/// a version byte (1), the key's id (16 bytes), the nonce (24), the ciphertext with its tag (16).
pub struct Sealed<T> {
    bytes: Bytes,
    of: PhantomData<fn() -> T>,
}

/// What was in a sealed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened<T> {
    /// This.
    Value(T),
    /// The person has been forgotten; nobody can know any more.
    Forgotten,
}

impl<T> Opened<T> {
    /// The value, unless it is forgotten.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Forgotten => None,
        }
    }
}

impl<T> Sealed<T> {
    /// A sealed value as it was stored; whether it is one is found out when it is opened.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes, of: PhantomData }
    }

    /// As it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self::from_bytes(self.bytes.clone())
    }
}

/// The same bytes. The same value sealed twice isn't equal: nonces differ.
impl<T> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Sealed<T> {}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sealed({} bytes)", self.bytes.len())
    }
}

impl<T> Serialize for Sealed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de, T> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor).map(|bytes| Self::from_bytes(bytes.into()))
    }
}

/// Takes bytes as Avro has them, and as JSON does (a list of numbers).
struct BytesVisitor;

impl<'de> de::Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the bytes of a sealed value")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}
