//! Epoch: event sourcing for services that must not lose, repeat or reorder anything.
//!
//! An [`Aggregate`] decides events from commands, purely. A [`Repository`] executes commands against an
//! [event store](store), counting versions and retrying lost races. Committed events reach projections and sagas
//! ([handlers](handler)) three ways, and one [gate] makes that exactly once.
//!
//! Epoch knows no database and no broker; `epoch-postgres` and `epoch-kafka` bring those. [`memory`] has everything needed to
//! try it out, [`testkit`] everything needed to test. The guide is in `docs/epoch`, examples are in `examples`.

pub mod aggregate;
pub mod delivery;
pub mod event;
pub mod memory;
pub mod personal;
pub mod repository;
pub mod saga;
pub mod store;
pub mod testkit;
pub mod time;

pub use aggregate::{
    Aggregate, context,
    context::CommandContext,
    id,
    id::{AggregateId, Id},
};
pub use delivery::{bus, fast_path as local, gate, handler, message, trace};
pub use event::{
    DomainEvent, avro, envelope,
    envelope::{Batch, Envelope},
    version,
    version::{Position, Version},
};
pub use repository::{ExecuteError, Executed, Repository, cache};
pub use saga::Saga;
pub use store::{
    bounds,
    bounds::{Bounds, Positions, Versions},
    fold, snapshot, state,
};
pub use time::{clock, retry, timestamp, timestamp::Timestamp};

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
