//! Epoch on Postgres: one schema of a database is a service's event store, its delivery gate and its relay's memory.
//!
//! - [`PgStore`] appends (in groups) and reads; [`PgTx`] is a transaction over several aggregates and the caller's own tables.
//! - [`PgBlobStates`] and [`PgSnapshots`] keep states beside the log.
//! - [`PgSubscription`] is a handler behind the delivery gate; [`dead_letters`] are what it could not take.
//! - [`Relay`] brings the log to a bus; [`PgBus`] is a bus where there is no broker; [`replay`] goes without one.
//! - [`saga`] keeps instances of sagas, their timers and their outbox; [`PgKeyStore`] the keys of personal data.
//! - [`Progress`] lets a read wait for a version, and tells how far subscriptions are behind.
//! - [`Rebuild`] makes a projection anew beside the one in use; [`Watched`] and [`check_tables`] see to it that it misses nothing.

mod bus;
mod database;
mod delivery;
mod rebuild;
mod relay;
pub mod saga;
mod store;
mod subject_keys;
#[cfg(feature = "testkit")]
pub mod testkit;
mod transaction;

pub use bus::pg_bus::PgBus;
pub use database::{
    connect::{begin, connect},
    error::{is_transient, store_error},
    migrations::migrate,
};
pub use delivery::{
    applied_versions::{newest_reached, reached},
    dead_letters,
    declared_tables::{SharedTable, Watched, check_tables},
    handler::{HandlerError, PgHandler},
    lag::Lag,
    progress::{Progress, WaitError, version_number},
    replay::replay,
    subscription::PgSubscription,
    subscription_status::SubscriptionStatus,
};
pub use rebuild::{Rebuild, RebuildError, RebuildProgress, Rebuilt, in_building};
pub use relay::{Relay, RelayStatus};
pub use saga::{Commanded, EffectSender, PgSaga, SagaCommands, SagaEffects, SagaTimers, SendError};
pub use store::{
    appender::Appender,
    pg_store::PgStore,
    snapshots::PgSnapshots,
    states::PgBlobStates,
    stream_ends::{StreamEnd, StreamEnds},
};
pub use subject_keys::PgKeyStore;
pub use transaction::pg_tx::{PgTx, TxError};

/// The pages of the guide whose code needs nothing but this crate and those below it: compiled, and run where they need no server.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/epoch/projections.md")]
    mod projections {}
    #[doc = include_str!("../../../docs/epoch/operations.md")]
    mod operations {}
}
