//! Event stores, state stores and snapshots.

pub mod bounds;
mod event_store;
pub mod fold;
pub mod snapshot;
pub mod state;

pub use event_store::{
    Append, Appended, Appender, CommandRecord, EventStore, FoundCommand, MAX_PAYLOAD_BYTES, NewEvent, StoreError,
    Streamer,
};
