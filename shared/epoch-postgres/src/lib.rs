//! Epoch on Postgres. One schema of a database holds a service's event store, its delivery gate and its relay cursor.
//!
//! - [`PgStore`] appends events in groups and reads them; [`PgTx`] is a transaction over several aggregates and the
//!   caller's
//!   own tables.
//! - [`PgBlobStates`] and [`PgSnapshots`] store aggregate states.
//! - [`PgSubscription`] delivers events to a handler through the gate. [`dead_letters`] holds the events that it failed
//!   on.
//! - [`Relay`] publishes the log to a bus; [`PgBus`] is a bus without a broker; [`replay`] delivers from the log
//!   itself.
//! - [`saga`] holds saga instances, their timers and their outbox; [`PgKeyStore`] holds the keys of personal data.
//! - [`Progress`] lets a read wait for a version, and measures the lag of subscriptions.
//! - [`Rebuild`] builds a projection again while the current one serves. [`WriteCheckedHandler`] and [`check_tables`]
//!   ensure
//!   that it covers every table that the handler writes.
//! - [`migrate`] creates and updates the tables and functions.

#![warn(missing_docs)]

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
    begin::begin,
    connect::connect,
    error::{is_transient, store_error},
    migrations::migrate,
};
pub use delivery::{
    dead_letters,
    declared_tables::{SharedTable, check_tables},
    error::HandlerError,
    handler::PgHandler,
    lag::Lag,
    progress::{Progress, WaitError, version_number},
    projection::{Projection, ProjectionHandler},
    read_cursors::{last_applied_id, read_cursors},
    replay::replay,
    subscription::PgSubscription,
    subscription_status::SubscriptionStatus,
    write_checked_handler::WriteCheckedHandler,
};
pub use rebuild::{Rebuild, RebuildError, RebuildProgress, RebuildSummary, building_generation};
pub use relay::{Relay, RelayStatus};
pub use saga::{CommandOutcome, EffectSender, PgSaga, SagaCommands, SagaEffects, SagaTimers, SendError};
pub use store::{
    appender::Appender,
    pg_store::PgStore,
    snapshots::PgSnapshots,
    states::PgBlobStates,
    stream_ends::{StreamEnd, StreamEnds},
};
pub use subject_keys::PgKeyStore;
pub use transaction::{
    error::{TransactionError, TxError},
    pg_tx::PgTx,
};

/// Compiles the examples of the README and of the guide pages that need only this crate and its dependencies. Examples
/// without a server also run.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/epoch/projections.md")]
    mod projections {}
    #[doc = include_str!("../../../docs/epoch/operations.md")]
    mod operations {}
}
