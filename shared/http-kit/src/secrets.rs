//! Secrets derived from the installation's one secret, `CATACLOUD_SECRET`.
//!
//! Each use derives its own value under its own label, so that a value leaked from one use does not compromise another.

use std::{fmt, str::FromStr, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("secret has {length} bytes, at least {} are required", Secrets::MIN_BYTES)]
    TooShort { length: usize },
    #[error("secret cannot be used as a key of HMAC-SHA256")]
    NoKey,
}

/// The secret that all processes of an installation share (`CATACLOUD_SECRET`).
#[derive(Clone)]
pub struct Secrets {
    mac: Hmac<Sha256>,
    internal_token: Arc<str>,
}

impl Secrets {
    /// The minimum length of a secret, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// # Errors
    /// [`SecretError`] when it is shorter than [`Secrets::MIN_BYTES`].
    pub fn new(secret: &str) -> Result<Self, SecretError> {
        if secret.len() < Self::MIN_BYTES {
            return Err(SecretError::TooShort { length: secret.len() });
        }
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| SecretError::NoKey)?;
        let token = mac.clone().chain_update(b"internal").finalize().into_bytes();
        Ok(Self { mac, internal_token: hex::encode(token).into() })
    }

    /// Returns `HMAC-SHA256(secret, "<label>:<bytes>")`.
    #[must_use]
    pub fn derive(&self, label: &'static str, bytes: &[u8]) -> [u8; 32] {
        let mac = self.mac.clone().chain_update(label.as_bytes()).chain_update(b":").chain_update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Returns the token by which processes of this installation authenticate to each other:
    /// `hex(HMAC-SHA256(secret, "internal"))`.
    #[must_use]
    pub fn internal_token(&self) -> &str {
        &self.internal_token
    }

    /// Compares `candidate` with the internal token in constant time.
    #[must_use]
    pub fn is_internal_token(&self, candidate: &[u8]) -> bool {
        self.internal_token.as_bytes().ct_eq(candidate).into()
    }
}

impl FromStr for Secrets {
    type Err = SecretError;

    fn from_str(secret: &str) -> Result<Self, Self::Err> {
        Self::new(secret)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secrets(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::{SecretError, Secrets};

    #[test]
    fn derived_values_match_openssl() {
        // printf internal | openssl dgst -sha256 -hmac 0123456789abcdef
        let secrets = Secrets::new("0123456789abcdef").unwrap();
        assert_eq!(secrets.internal_token(), "706d35f6320bac950b5e5e7f59d274b3e9542b83a2305bf8d73a498b0d0ebd5b");
        assert_eq!(
            hex::encode(secrets.derive("api-key", b"1")),
            "6e448cb3ca517fd87af023b6e97290cd2ae86bc5c5857390c77adeeec19186f2"
        );
    }

    #[test]
    fn partial_or_foreign_token_is_refused() {
        let secrets = Secrets::new("0123456789abcdef").unwrap();
        let token = secrets.internal_token().as_bytes();
        assert!(secrets.is_internal_token(token));
        assert!(!secrets.is_internal_token(&token[1..]));
        assert!(!secrets.is_internal_token(b""));
        assert!(!Secrets::new("0123456789abcdeX").unwrap().is_internal_token(token));
    }

    #[test]
    fn short_secret_is_refused_and_debug_is_empty() {
        assert_eq!(Secrets::new("short").unwrap_err(), SecretError::TooShort { length: 5 });
        assert_eq!(format!("{:?}", Secrets::new("0123456789abcdef").unwrap()), "Secrets(…)");
    }
}
