//! In-memory stores, subscriptions and bus, for tests and examples.
//!
//! They pass the same conformance suites as the durable implementations; only durability is missing.

mod bus;
pub(crate) mod lock;
mod snapshot_store;
mod state_store;
mod store;
mod subscription;

pub use bus::MemoryBus;
pub use snapshot_store::MemorySnapshotStore;
pub use state_store::MemoryStateStore;
pub use store::MemoryStore;
pub use subscription::MemorySubscription;
