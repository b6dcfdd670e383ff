//! API keys that can be shown twice without being stored.
//!
//! The problem: creating a key must give the same answer when it is repeated, but whoever reads the database must not
//! find keys in it.
//!
//! The invariant: a key's text is a function of its id and the installation's secret, `cat_<id>_<HMAC>`; the database
//! has its SHA-256 only.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::secrets::Secrets;

const PREFIX: &str = "cat_";
const PROOF_BYTES: usize = 32;

/// Text that isn't an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: it should read cat_<32 hex digits>_<64 hex digits>")]
pub struct ParseApiKeyError;

/// An API key in full. Shown by [`ApiKey::reveal`] only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey {
    id: Uuid,
    proof: [u8; PROOF_BYTES],
}

impl ApiKey {
    /// The key with this id; the same every time.
    #[must_use]
    pub fn issue(id: Uuid, secrets: &Secrets) -> Self {
        Self { id, proof: secrets.derive("api-key", id.to_string().as_bytes()) }
    }

    /// Names the key; not secret.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Whether this installation issued the key, which doesn't say that it is still valid.
    #[must_use]
    pub fn is_genuine(&self, secrets: &Secrets) -> bool {
        Self::issue(self.id, secrets).proof.ct_eq(&self.proof).into()
    }

    /// The key's text, for its owner's eyes.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id.simple(), hex::encode(self.proof))
    }

    /// SHA-256 of the whole text: what is stored, and what a shown key is looked up by.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.reveal()).into()
    }
}

impl FromStr for ApiKey {
    type Err = ParseApiKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, proof) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(ParseApiKeyError)?;
        // One spelling a key, so that one key has one digest.
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
    fn the_same_id_gives_the_same_key() {
        let key = ApiKey::issue(ID, &secrets());
        assert_eq!(key.reveal(), ApiKey::issue(ID, &secrets()).reveal());
        assert!(key.reveal().starts_with("cat_0198c0de000070008000000000000001_"));
        assert_eq!(key.reveal().len(), 4 + 32 + 1 + 64);
        assert_eq!(key.digest(), <[u8; 32]>::from(Sha256::digest(key.reveal())));
    }

    #[test]
    fn reads_what_it_shows_and_nothing_else() {
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
    fn knows_forged_keys() {
        let key = ApiKey::issue(ID, &secrets());
        assert!(key.is_genuine(&secrets()));
        assert!(!key.is_genuine(&Secrets::new("another secret, as long").unwrap()));
        let other_id = key.reveal().replace("0001_", "0002_").parse::<ApiKey>().unwrap();
        assert!(!other_id.is_genuine(&secrets()));
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let key = ApiKey::issue(ID, &secrets());
        assert_eq!(format!("{key:?}"), format!("ApiKey({ID}, …)"));
    }
}
