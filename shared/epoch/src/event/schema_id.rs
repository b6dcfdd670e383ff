//! Schema fingerprints.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The CRC-64-AVRO (Rabin) fingerprint of a schema's Parsing Canonical Form.
///
/// Source: Apache Avro 1.12 specification, "Schema Fingerprints".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaId(u64);

impl SchemaId {
    /// Creates the id of the schema with this fingerprint.
    #[must_use]
    pub const fn new(fingerprint: u64) -> Self {
        Self(fingerprint)
    }

    /// Returns the fingerprint.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}
