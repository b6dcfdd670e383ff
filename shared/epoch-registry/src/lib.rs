//! Schema registries for Epoch's buses.
//!
//! The problem: readers that weren't built with our schemas must be able to find the one an event was written with, by the
//! number that Confluent's wire format puts before the payload. The registry that gives the numbers is one more thing that can be
//! away.
//!
//! The invariant: a number stands for one schema for ever, so that what was asked once is never asked again. Without an answer
//! nothing is published in a frame that nobody could read, and nothing is delivered under a guessed schema: both wait.
//!
//! A bus asks its [`Framing`], which remembers what the registry said.

mod file_registry;
mod framing;
mod http_registry;

use async_trait::async_trait;
use epoch::{avro::InvalidSchema, event::SchemaId};

pub use file_registry::FileRegistry;
pub use framing::Framing;
pub use http_registry::HttpRegistry;

/// Gives schemas numbers and tells which schema has a number.
#[async_trait]
pub trait SchemaRegistry: Send + Sync + 'static {
    /// The number of a schema, a JSON document; it is registered under `subject` if it isn't yet. Answers in bounded time.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when it can be tried again, [`RegistryError::Refused`] when that makes no sense.
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// The schema with this number, a JSON document. Answers in bounded time.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when it can be tried again, [`RegistryError::UnknownId`] when the registry says that
    /// there is none.
    async fn schema(&self, id: u32) -> Result<String, RegistryError>;
}

/// Why a registry gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It can't be reached, or it is in trouble.
    #[error("the schema registry gives no answer: {detail}")]
    Unavailable {
        /// What was seen.
        detail: String,
    },
    /// It has no schema with this number.
    #[error("the schema registry knows no schema {id}")]
    UnknownId {
        /// The number.
        id: u32,
    },
    /// It doesn't take the schema: the subject's rules of compatibility are broken, or it isn't allowed to us.
    #[error("the schema registry refuses a schema for subject {subject}: {detail}")]
    Refused {
        /// Where it should have been registered.
        subject: String,
        /// What it said.
        detail: String,
    },
    /// What it has under this number doesn't describe events.
    #[error("schema {id} of the registry: {source}")]
    Unusable {
        /// The number.
        id: u32,
        /// Why.
        source: InvalidSchema,
    },
    /// An event can't be published: its schema isn't among those the bus was given.
    #[error("schema {schema} is not among those that may be registered")]
    NotGiven {
        /// The event's schema.
        schema: SchemaId,
    },
    /// One of the schemas that the bus was given doesn't describe events.
    #[error(transparent)]
    Invalid(#[from] InvalidSchema),
    /// It can't be used as it is configured.
    #[error("the schema registry's settings can't be used: {detail}")]
    Settings {
        /// What was seen.
        detail: String,
    },
    /// A directory of schemas can't be read.
    #[error("schemas can't be read from {path}: {detail}")]
    Directory {
        /// The file or directory.
        path: String,
        /// What was seen.
        detail: String,
    },
}
