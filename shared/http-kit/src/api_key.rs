//! API keys derived from their id: `cat_<id>_<HMAC>`.
//!
//! Creating a key must return the same key when the request is repeated, yet the database must not contain usable keys.
//! So the text of a key is a function of its id and the installation's secret, and the database stores only its SHA-256.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::secrets::Secrets;

const PREFIX: &str = "cat_";
const PROOF_BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: expected cat_<32 hex digits>_<64 hex digits>")]
pub struct ParseApiKeyError;

/// A complete API key. Only [`ApiKey::reveal`] returns its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey {
    id: Uuid,
    proof: [u8; PROOF_BYTES],
}

impl ApiKey {
    /// Derives the key of this id. The same id and secret always give the same key.
    #[must_use]
    pub fn issue(id: Uuid, secrets: &Secrets) -> Self {
        Self { id, proof: secrets.derive("api-key", id.to_string().as_bytes()) }
    }

    /// Returns the id, which is not secret.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns whether this installation issued the key. A genuine key may still be revoked.
    #[must_use]
    pub fn is_genuine(&self, secrets: &Secrets) -> bool {
        Self::issue(self.id, secrets).proof.ct_eq(&self.proof).into()
    }

    /// Returns the text of the key, to be shown to its owner only.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id.simple(), hex::encode(self.proof))
    }

    /// Returns the SHA-256 of the text. It is stored, and a presented key is looked up by it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.reveal()).into()
    }
}

impl FromStr for ApiKey {
    type Err = ParseApiKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, proof) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(ParseApiKeyError)?;
        // Accept one spelling only, so that one key has one digest.
        let canonical = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        if id.len() != 32 || !canonical(text) {
            return Err(ParseApiKeyError);
        }
        let id = Uuid::try_parse(id).map_err(|_| ParseApiKeyError)?;
        let mut bytes = [0; PROOF_BYTES];
        hex::decode_to_slice(proof, &mut bytes).map_err(|_| ParseApiKeyError)?;
        Ok(Self { id, proof: bytes })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKey({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use uuid::Uuid;

    use super::ApiKey;
    use crate::secrets::Secrets;

    const ID: Uuid = Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001);

    fn secrets() -> Secrets {
        Secrets::new("a secret for the tests").unwrap()
    }

    #[test]
    fn issue_is_deterministic() {
        let key = ApiKey::issue(ID, &secrets());
        assert_eq!(key.reveal(), ApiKey::issue(ID, &secrets()).reveal());
        assert!(key.reveal().starts_with("cat_0198c0de000070008000000000000001_"));
        assert_eq!(key.reveal().len(), 4 + 32 + 1 + 64);
        assert_eq!(key.digest(), <[u8; 32]>::from(Sha256::digest(key.reveal())));
    }

    #[test]
    fn parse_accepts_only_the_canonical_text() {
        let key = ApiKey::issue(ID, &secrets());
        let text = key.reveal();
        assert_eq!(text.parse(), Ok(key));
        let upper = text.replace("c0de", "C0DE");
        let hyphenated = text.replace("0198c0de000070008000000000000001", &ID.to_string());
        for wrong in ["", "cat_", "cat__", "Bearer x", &text[1..], &text[..text.len() - 1], &upper, &hyphenated] {
            assert!(wrong.parse::<ApiKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn forged_key_is_not_genuine() {
        let key = ApiKey::issue(ID, &secrets());
        assert!(key.is_genuine(&secrets()));
        assert!(!key.is_genuine(&Secrets::new("another secret, as long").unwrap()));
        let other_id = key.reveal().replace("0001_", "0002_").parse::<ApiKey>().unwrap();
        assert!(!other_id.is_genuine(&secrets()));
    }

    #[test]
    fn debug_output_hides_the_proof() {
        let key = ApiKey::issue(ID, &secrets());
        assert_eq!(format!("{key:?}"), format!("ApiKey({ID}, …)"));
    }
}
