//! Master keys, which wrap the keys of subjects.
//!
//! A wrapped key is bound to its id and its subject, so that exchanging rows of the key table is detected.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    cipher::{PlainKey, associated_data, decrypt, encrypt},
    key_store::WrappedKey,
};

/// Associated data of wrapped keys; part of the stored format.
const KEY_PURPOSE: &str = "epoch key";

/// A key that wraps the subjects' keys. It exists in the configuration only.
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

/// The text is not a master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid master key: expected a number, a colon and 64 hexadecimal digits")]
pub struct MasterKeyError;

impl MasterKey {
    /// Creates the master key with this number. Never reuse a number for another key.
    #[must_use]
    pub fn new(number: u32, key: [u8; 32]) -> Self {
        Self { number, key: Zeroizing::new(key) }
    }
}

impl std::str::FromStr for MasterKey {
    type Err = MasterKeyError;

    /// Parses the configuration's format, `1:00112233…`.
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

/// The current master key, and earlier ones that still wrap some keys.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    current: u32,
    keys: BTreeMap<u32, MasterKey>,
}

impl MasterKeys {
    /// Wraps new keys with `current`, and unwraps with any of the keys.
    #[must_use]
    pub fn new(current: MasterKey, earlier: impl IntoIterator<Item = MasterKey>) -> Self {
        let number = current.number;
        let mut keys: BTreeMap<u32, MasterKey> = earlier.into_iter().map(|key| (key.number, key)).collect();
        keys.insert(number, current);
        Self { current: number, keys }
    }

    /// Returns the number of the current master key.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Wraps a key with the current master key. Returns `None` when the system has no random numbers.
    pub(super) fn wrap(&self, id: Uuid, subject: Uuid, key: &PlainKey) -> Option<WrappedKey> {
        let master = self.keys.get(&self.current)?;
        let wrapped = encrypt(&master.key, &associated_data(KEY_PURPOSE, id, subject), key.as_slice())?;
        Some(WrappedKey { id, subject, master: self.current, wrapped })
    }

    /// Unwraps a key. Returns `None` when its master key is not configured or does not match.
    pub(super) fn unwrap_key(&self, key: &WrappedKey) -> Option<PlainKey> {
        let master = self.keys.get(&key.master)?;
        let plain =
            Zeroizing::new(decrypt(&master.key, &associated_data(KEY_PURPOSE, key.id, key.subject), &key.wrapped)?);
        Some(Zeroizing::new(plain.as_slice().try_into().ok()?))
    }

    pub(super) fn contains(&self, master: u32) -> bool {
        self.keys.contains_key(&master)
    }
}
