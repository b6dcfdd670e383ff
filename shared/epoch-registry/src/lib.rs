//! Schema registries for Epoch's buses.
//!
//! Confluent's wire format puts a schema id before each payload. Readers built without the schemas look this id up in a registry. A
//! bus asks its [`Framing`], which caches every id the registry has assigned.
//!
//! An id stands for one schema for ever, so an answer is cached and never requested again. While the registry is down:
//!
//! - an event with an unregistered schema is not published, and the events after it wait;
//! - an event with an unknown id is not delivered, and the later events of its partition wait;
//! - all schemas that are already cached work as usual in both directions.
//!
//! [`EventDelivery`] is the consumers' half: it resolves schemas and retries until the subscription accepts the events.

#![warn(missing_docs)]

mod delivery;
mod error;
mod file_registry;
mod framing;
mod http_registry;
mod schema_registry;

pub use delivery::{ConsumedEvent, DeliveryObserver, EventDelivery};
pub use error::RegistryError;
pub use file_registry::FileRegistry;
pub use framing::Framing;
pub use http_registry::HttpRegistry;
pub use schema_registry::SchemaRegistry;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
