//! The operator's key.
//!
//! The key gives access to all organizations. Only its SHA-256 stays in memory, it is compared in constant time, and no
//! output contains it.

use std::{fmt, str::FromStr};

use clap::Args;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Rejection of a text as the operator's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminKeyError {
    /// The key could be guessed.
    #[error("operator's key has {length} bytes; at least {} are required", AdminKey::MIN_BYTES)]
    TooShort { length: usize },
    /// The key does not fit into a header.
    #[error("operator's key has characters other than visible ASCII")]
    NotVisibleAscii,
}

/// SHA-256 of the operator's key.
#[derive(Clone)]
pub struct AdminKey {
    digest: [u8; 32],
}

impl AdminKey {
    /// Minimum length of a key.
    pub const MIN_BYTES: usize = 16;

    /// Returns whether `token` is the key.
    pub(crate) fn matches(&self, token: &str) -> bool {
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
            return Err(AdminKeyError::NotVisibleAscii);
        }
        Ok(Self { digest: Sha256::digest(key).into() })
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminKey(…)")
    }
}

/// Credential of the operator.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Operator's key: at least 16 visible ASCII characters, for example from `openssl rand -hex 24`
    #[arg(long, env = "CATACLOUD_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: AdminKey,
}

#[cfg(test)]
mod tests {
    use super::{AdminKey, AdminKeyError};

    #[test]
    fn only_exact_key_matches() {
        let key: AdminKey = "cadm_0123456789abcdef".parse().unwrap();
        assert!(key.matches("cadm_0123456789abcdef"));
        for wrong in ["", "cadm_0123456789abcde", "cadm_0123456789abcdef0", "CADM_0123456789ABCDEF"] {
            assert!(!key.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn invalid_key_is_rejected_and_never_printed() {
        assert_eq!("short".parse::<AdminKey>().unwrap_err(), AdminKeyError::TooShort { length: 5 });
        assert_eq!("a key with spaces in it".parse::<AdminKey>().unwrap_err(), AdminKeyError::NotVisibleAscii);
        assert_eq!(format!("{:?}", "cadm_0123456789abcdef".parse::<AdminKey>().unwrap()), "AdminKey(…)");
    }
}
