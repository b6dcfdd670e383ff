//! The key that makes its holder the platform's operator.
//!
//! The problem: whoever can guess or read this key owns all organizations. The invariant: only its SHA-256 is kept, it is
//! compared in a time that says nothing about it, and it shows in no output.

use std::{fmt, str::FromStr};

use clap::Args;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminKeyError {
    /// It can be guessed.
    #[error("operator's key has {length} bytes, at least {} are needed", AdminKey::MIN_BYTES)]
    TooShort {
        /// How long it is.
        length: usize,
    },
    /// It can't be sent in a header.
    #[error("operator's key has characters other than visible ASCII")]
    NotVisible,
}

/// The operator's key.
#[derive(Clone)]
pub struct AdminKey {
    digest: [u8; 32],
}

impl AdminKey {
    /// The shortest key accepted.
    pub const MIN_BYTES: usize = 16;

    /// Whether `token` is the key.
    pub(crate) fn is(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.digest.ct_eq(&digest).into()
    }
}

impl FromStr for AdminKey {
    type Err = AdminKeyError;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        if key.len() < Self::MIN_BYTES {
            return Err(AdminKeyError::TooShort { length: key.len() });
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AdminKeyError::NotVisible);
        }
        Ok(Self { digest: Sha256::digest(key).into() })
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminKey(…)")
    }
}

/// Who administers the platform.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The operator's key, at least 16 visible ASCII characters, as from `openssl rand -hex 24`
    #[arg(long, env = "CATACLOUD_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: AdminKey,
}

#[cfg(test)]
mod tests {
    use super::{AdminKey, AdminKeyError};

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key: AdminKey = "cadm_0123456789abcdef".parse().unwrap();
        assert!(key.is("cadm_0123456789abcdef"));
        for wrong in ["", "cadm_0123456789abcde", "cadm_0123456789abcdef0", "CADM_0123456789ABCDEF"] {
            assert!(!key.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn refuses_what_is_short_or_can_t_be_sent_and_shows_nothing() {
        assert_eq!("short".parse::<AdminKey>().unwrap_err(), AdminKeyError::TooShort { length: 5 });
        assert_eq!("a key with spaces in it".parse::<AdminKey>().unwrap_err(), AdminKeyError::NotVisible);
        assert_eq!(format!("{:?}", "cadm_0123456789abcdef".parse::<AdminKey>().unwrap()), "AdminKey(…)");
    }
}
