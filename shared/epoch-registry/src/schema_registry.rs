//! The interface of a schema registry.

use async_trait::async_trait;

use crate::error::RegistryError;

/// Assigns ids to schemas and looks schemas up by id.
#[async_trait]
pub trait SchemaRegistry: Send + Sync + 'static {
    /// Returns the id of `schema`, a JSON document, and registers it under `subject` if it is new.
    ///
    /// Implementations return within a bounded time.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when a retry may succeed, [`RegistryError::Refused`] when the registry rejects the schema.
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// Returns the schema with this id as a JSON document.
    ///
    /// Implementations return within a bounded time.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when a retry may succeed, [`RegistryError::UnknownId`] when the registry has no such schema.
    async fn schema(&self, id: u32) -> Result<String, RegistryError>;
}
