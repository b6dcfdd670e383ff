//! Epoch: event sourcing for services that must not lose, repeat or reorder anything.
//!
//! An [`Aggregate`] decides events from commands, purely. A [`Repository`] executes commands against an
//! [event store](store), counting versions and retrying lost races. Committed events reach projections and sagas
//! ([handlers](handler)) three ways, and one [gate] makes that exactly once.
//!
//! Epoch knows no database and no broker; `epoch-postgres` and `epoch-kafka` bring those. [`memory`] has everything needed to
//! try it out, [`testkit`] everything needed to test. The guide is in `docs/epoch`, examples are in `examples`.

pub mod aggregate;
pub mod avro;
pub mod bounds;
pub mod bus;
pub mod cache;
pub mod clock;
pub mod context;
pub mod envelope;
pub mod event;
mod events;
pub mod fold;
pub mod gate;
pub mod handler;
pub mod id;
pub mod local;
pub mod memory;
pub mod message;
pub mod personal;
pub mod repository;
pub mod retry;
pub mod saga;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod testkit;
pub mod timestamp;
mod tip;
pub mod trace;
pub mod version;

pub use aggregate::Aggregate;
pub use bounds::{Bounds, Positions, Versions};
pub use context::CommandContext;
pub use envelope::{Batch, Envelope};
pub use event::DomainEvent;
pub use id::{AggregateId, Id};
pub use repository::{ExecuteError, Executed, Repository};
pub use saga::Saga;
pub use timestamp::Timestamp;
pub use version::{Position, Version};

/// The pages of the guide whose code needs nothing but this crate: compiled, and run where they need no server.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/epoch/first-aggregate.md")]
    mod first_aggregate {}
    #[doc = include_str!("../../../docs/epoch/sagas.md")]
    mod sagas {}
    #[doc = include_str!("../../../docs/epoch/evolution.md")]
    mod evolution {}
    #[doc = include_str!("../../../docs/epoch/testing.md")]
    mod testing {}
    #[doc = include_str!("../../../docs/epoch/performance.md")]
    mod performance {}
}
