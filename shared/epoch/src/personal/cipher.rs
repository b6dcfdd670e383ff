//! Authenticated encryption with XChaCha20-Poly1305.

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The length of a nonce in bytes.
pub(super) const NONCE: usize = 24;

/// An unwrapped key; its memory is zeroed on drop.
pub(super) type PlainKey = Zeroizing<[u8; 32]>;

/// Generates a random key. Returns `None` when the system has no random numbers.
pub(super) fn generate_key() -> Option<PlainKey> {
    Key::try_generate().ok().map(|key| Zeroizing::new(key.into()))
}

/// Returns the associated data that binds a ciphertext to its purpose, key and subject, so that it cannot be decrypted
/// as another value.
pub(super) fn associated_data(purpose: &str, key: Uuid, subject: Uuid) -> Vec<u8> {
    [purpose.as_bytes(), key.as_bytes(), subject.as_bytes()].concat()
}

/// Returns a random nonce followed by ciphertext and tag. Random nonces of 24 bytes do not collide in practice.
pub(super) fn encrypt(key: &PlainKey, associated_data: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new(&Key::from(**key));
    let nonce = XNonce::try_generate().ok()?;
    let ciphertext = cipher.encrypt(&nonce, Payload { msg: plain, aad: associated_data }).ok()?;
    Some([nonce.as_slice(), &ciphertext].concat())
}

/// Decrypts the output of [`encrypt`]. Returns `None` when it was altered or the key or the associated data differ.
pub(super) fn decrypt(key: &PlainKey, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
    let cipher = XChaCha20Poly1305::new(&Key::from(**key));
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated_data }).ok()
}
