//! Epoch: event sourcing with exactly-once, in-order delivery.
//!
//! An [`Aggregate`] purely decides events from commands. A [`Repository`] executes commands against an [event
//! store](store): it counts versions and retries write conflicts. Committed events reach [handlers](handler), which are
//! projections and sagas, by three delivery sources: the [fast path](fast_path), a [bus] and replay. One [gate] makes
//! the delivery exactly-once.
//!
//! | Module | Content |
//! |---|---|
//! | [`event`] | events, their Avro encoding, versions and envelopes |
//! | [`aggregate`] | aggregates, their ids, and command contexts |
//! | [`store`] | contracts of event stores, state stores and snapshot stores |
//! | [`repository`] | execution of commands, loading of states |
//! | [`delivery`] | gate, fast path, bus contract, messages, handlers |
//! | [`saga`] | long-running processes |
//! | [`personal`] | erasable personal data in events |
//! | [`memory`] | in-memory implementations |
//! | [`testkit`] | given-when-then tests and conformance suites |
//! | [`time`] | instants, clocks, retry delays |
//!
//! Epoch itself does no I/O: `epoch-postgres` and `epoch-kafka` implement stores and buses. The guide is in
//! `docs/epoch`, and examples are in `examples`.

#![warn(missing_docs)]

pub mod aggregate;
pub mod delivery;
mod error_chain;
pub mod event;
pub mod memory;
pub mod personal;
pub mod repository;
pub mod saga;
pub mod store;
pub mod testkit;
pub mod time;

pub use aggregate::{
    Aggregate, VersionedState, context,
    context::CommandContext,
    id,
    id::{AggregateId, Id},
};
pub use delivery::{bus, fast_path, fast_path::FastPath, gate, handler, message, trace};
pub use error_chain::error_chain;
pub use event::{
    DomainEvent, Metadata, avro, envelope,
    envelope::{Batch, Envelope},
    version,
    version::{Position, Version},
};
pub use repository::{ExecuteError, ExecutionOutcome, Repository};
pub use saga::Saga;
pub use store::{
    bounds,
    bounds::{Bounds, Positions, Versions},
    fold, snapshot, state,
};
pub use time::{clock, retry, timestamp, timestamp::Timestamp};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// The pages of the guide that use no other crate, compiled as doctests.
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
