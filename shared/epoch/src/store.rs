//! The contracts of event stores, state stores and snapshot stores.

mod append;
pub mod bounds;
mod error;
mod event_store;
pub mod fold;
pub mod snapshot;
pub mod state;

pub use append::{Append, AppendOutcome, CommandLookup, CommandRecord, MAX_PAYLOAD_BYTES, NewEvent};
pub use error::StoreError;
pub use event_store::{Appender, EventStore, Streamer};
