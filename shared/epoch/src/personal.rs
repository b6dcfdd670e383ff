//! Personal data in an immutable log.
//!
//! A person may demand erasure, but events are kept forever: in the store, on the bus and in copies. Therefore an event
//! contains identifying data only as a [`Sealed`] field, encrypted with a key of that person alone (the *subject*).
//! Destroying the key makes every copy of every event unreadable at once (crypto-shredding), while the log stays
//! unchanged: aggregates fold to the same state, and versions and positions remain.
//!
//! **Usage.** Seal before deciding ([`Keyring::seal`]), so that commands carry `Sealed` values and the aggregate stays
//! pure. Open where the data is displayed ([`Keyring::open`]) and handle [`Opened::Forgotten`]. An aggregate cannot
//! read a sealed field: validate its content before sealing.
//!
//! **When erasure takes effect.** Immediately in the process that calls [`Keyring::forget`]; in other processes when
//! their cached key expires, after [`Keyring::with_time_to_live`] (default: 30 s). Erasure is permanent: a tombstone
//! prevents a new key for the subject, so a late command cannot bring the person back unnoticed. A returning person is
//! a new subject.
//!
//! **Limits.** Consider these before promising erasure:
//! - *Read models* contain the data that they opened. Either open at query time, or publish the erasure as an event on
//!   which projections delete rows. A rebuild after the erasure yields "forgotten" in both cases.
//! - *Backups of the key table* contain the keys. Store them apart from backups of the log, and no longer than the
//!   legal deadline for erasure. The same applies to the database's write-ahead log and to deleted rows that are not
//!   vacuumed. After restoring a backup, repeat all erasures since then. Backups of the log need no treatment.
//! - *The master key* alone decrypts nothing: a subject's key is random, and only its wrapped form, which is deleted,
//!   could be unwrapped.
//! - *Lengths* are visible: a sealed field is as long as its content plus 57 bytes.
//! - Traces, error messages and HTTP logs are not events.

mod cipher;
mod key_store;
mod keyring;
mod master_key;
mod memory_key_store;
mod sealed;

pub use key_store::{KeyStore, KeyStoreError, SubjectKey, WrappedKey};
pub use keyring::{Keyring, KeyringError, MAX_BYTES};
pub use master_key::{MasterKey, MasterKeyError, MasterKeys};
pub use memory_key_store::MemoryKeyStore;
pub use sealed::{Opened, Sealed};
