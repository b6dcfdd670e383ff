//! Errors of schema registries.

use epoch::{avro::InvalidSchema, event::SchemaId};

/// A failed request to a schema registry, or a registry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry is unreachable or reports an internal failure. A retry may succeed.
    #[error("schema registry is unavailable: {detail}")]
    Unavailable {
        /// The failure that the client reported.
        detail: String,
    },
    /// The registry has no schema with this id.
    #[error("schema registry has no schema with id {id}")]
    UnknownId {
        /// The requested schema id.
        id: u32,
    },
    /// The registry rejected the schema: it is incompatible with the subject's earlier versions, or invalid.
    #[error("schema registry refused a schema for subject {subject}: {detail}")]
    Refused {
        /// The subject of the registration.
        subject: String,
        /// The registry's reason.
        detail: String,
    },
    /// The registered schema does not describe an event.
    #[error("schema {id} of the registry is not usable: {source}")]
    Unusable {
        /// The schema id.
        id: u32,
        /// The violated rule.
        source: InvalidSchema,
    },
    /// The event's schema is not among the schemas the bus was created with, so it is not published.
    #[error("schema {schema} is not among the schemas that the bus may register")]
    NotDeclared {
        /// The fingerprint of the event's schema.
        schema: SchemaId,
    },
    /// One of the schemas the bus was created with does not describe an event.
    #[error(transparent)]
    Invalid(#[from] InvalidSchema),
    /// The registry's settings are invalid.
    #[error("schema registry settings are invalid: {detail}")]
    Settings {
        /// The invalid setting.
        detail: String,
    },
    /// A directory of schemas cannot be read.
    #[error("cannot read schemas from {path}: {detail}")]
    Directory {
        /// The file or directory that failed.
        path: String,
        /// The reason.
        detail: String,
    },
}
