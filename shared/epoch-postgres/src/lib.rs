//! Epoch on Postgres: one schema of a database is a service's event store, its delivery gate and its relay's memory.
//!
//! - [`PgStore`] appends (in groups) and reads; [`PgTx`] is a transaction over several aggregates and the caller's own tables.
//! - [`PgBlobStates`] and [`PgSnapshots`] keep states beside the log.
//! - [`PgSubscription`] is a handler behind the delivery gate; [`dead_letters`] are what it could not take.
//! - [`Relay`] brings the log to a bus; [`PgBus`] is a bus where there is no broker; [`replay`] goes without one.
//! - [`saga`] keeps instances of sagas, their timers and their outbox; [`PgKeyStore`] the keys of personal data.
//! - [`Progress`] lets a read wait for a version, and tells how far subscriptions are behind.
//! - [`Rebuild`] makes a projection anew beside the one in use; [`Watched`] and [`check_tables`] see to it that it misses nothing.

mod append;
mod appender;
mod bus;
mod connect;
mod cursors;
pub mod dead_letters;
mod ends;
mod error;
mod generations;
mod handler;
mod lag;
mod loader;
mod migrations;
mod progress;
mod reached;
mod rebuild;
mod relay;
mod replay;
mod rows;
pub mod saga;
mod snapshots;
mod states;
mod status;
mod store;
mod streams;
mod subject_keys;
mod subscription;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tx;
mod writes;

pub use appender::Appender;
pub use bus::PgBus;
pub use connect::{begin, connect};
pub use ends::{StreamEnd, StreamEnds};
pub use error::{is_transient, store_error};
pub use handler::{HandlerError, PgHandler};
pub use lag::Lag;
pub use migrations::migrate;
pub use progress::{Progress, WaitError, version_number};
pub use reached::{newest_reached, reached};
pub use rebuild::{Rebuild, RebuildError, RebuildProgress, Rebuilt, in_building};
pub use relay::{Relay, RelayStatus};
pub use replay::replay;
pub use saga::{Commanded, EffectSender, PgSaga, SagaCommands, SagaEffects, SagaTimers, SendError};
pub use snapshots::PgSnapshots;
pub use states::PgBlobStates;
pub use status::SubscriptionStatus;
pub use store::PgStore;
pub use subject_keys::PgKeyStore;
pub use subscription::PgSubscription;
pub use tx::{PgTx, TxError};
pub use writes::{SharedTable, Watched, check_tables};

/// The pages of the guide whose code needs nothing but this crate and those below it: compiled, and run where they need no server.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/epoch/projections.md")]
    mod projections {}
    #[doc = include_str!("../../../docs/epoch/operations.md")]
    mod operations {}
}
