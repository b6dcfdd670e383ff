//! Everything secret that processes must agree on, from one setting.
//!
//! The problem: services must recognise each other, and a key must be shown again without having been stored; each would
//! need a secret of its own to hand out and to lose.
//!
//! The invariant: every use has its own label, so what is derived for one use says nothing about another.

use std::{fmt, str::FromStr, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A secret that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It can be guessed.
    #[error("secret has {length} bytes, at least {} are needed", Secrets::MIN_BYTES)]
    TooShort {
        /// How long it is.
        length: usize,
    },
    /// HMAC-SHA256 takes no such key.
    #[error("secret can't be a key of HMAC-SHA256")]
    NoKey,
}

/// The secret all processes of one installation share (`CATACLOUD_SECRET`).
#[derive(Clone)]
pub struct Secrets {
    mac: Hmac<Sha256>,
    internal_token: Arc<str>,
}

impl Secrets {
    /// The shortest secret accepted.
    pub const MIN_BYTES: usize = 16;

    /// Secrets derived from `secret`.
    ///
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

    /// `HMAC-SHA256(secret, "<label>:<bytes>")`.
    #[must_use]
    pub fn derive(&self, label: &'static str, bytes: &[u8]) -> [u8; 32] {
        let mac = self.mac.clone().chain_update(label.as_bytes()).chain_update(b":").chain_update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// What a process of this installation shows to another one: `hex(HMAC-SHA256(secret, "internal"))`.
    #[must_use]
    pub fn internal_token(&self) -> &str {
        &self.internal_token
    }

    /// Whether `candidate` is the internal token, in a time that says nothing about how much of it is right.
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
    fn derives_what_openssl_derives() {
        // printf internal | openssl dgst -sha256 -hmac 0123456789abcdef
        let secrets = Secrets::new("0123456789abcdef").unwrap();
        assert_eq!(secrets.internal_token(), "706d35f6320bac950b5e5e7f59d274b3e9542b83a2305bf8d73a498b0d0ebd5b");
        assert_eq!(
            hex::encode(secrets.derive("api-key", b"1")),
            "6e448cb3ca517fd87af023b6e97290cd2ae86bc5c5857390c77adeeec19186f2"
        );
    }

    #[test]
    fn only_the_whole_token_counts() {
        let secrets = Secrets::new("0123456789abcdef").unwrap();
        let token = secrets.internal_token().as_bytes();
        assert!(secrets.is_internal_token(token));
        assert!(!secrets.is_internal_token(&token[1..]));
        assert!(!secrets.is_internal_token(b""));
        assert!(!Secrets::new("0123456789abcdeX").unwrap().is_internal_token(token));
    }

    #[test]
    fn refuses_short_secrets_and_shows_none() {
        assert_eq!(Secrets::new("short").unwrap_err(), SecretError::TooShort { length: 5 });
        assert_eq!(format!("{:?}", Secrets::new("0123456789abcdef").unwrap()), "Secrets(…)");
    }
}
