//! A client of Confluent's registry API, which Confluent, Redpanda, Karapace and Apicurio implement.
//!
//! `UnknownId` and `Refused` are final, so they are returned only for the registry's own error codes. Every other failure is
//! `Unavailable`, including an HTTP error from a proxy, because a retry may succeed.

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};

use crate::{error::RegistryError, schema_registry::SchemaRegistry};

/// The time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Confluent's error code for an unknown schema id.
const SCHEMA_NOT_FOUND: u32 = 40_403;

/// A schema registry reached over HTTP.
pub struct HttpRegistry {
    settings: SrSettings,
}

impl HttpRegistry {
    /// Creates a client for the registry at these URLs, such as `http://registry:8081`, which are tried in turn. The registry may
    /// still be down.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when `urls` is empty or the HTTP client cannot be created.
    pub fn new(urls: &[impl AsRef<str>]) -> Result<Self, RegistryError> {
        let Some((first, others)) = urls.split_first() else {
            return Err(RegistryError::Settings { detail: "no registry URL is set".to_owned() });
        };
        let mut builder = SrSettings::new_builder(base_url(first.as_ref()));
        for url in others {
            builder.add_url(base_url(url.as_ref()));
        }
        let settings = builder.set_timeout(TIMEOUT).build();
        let settings = settings.map_err(|error| RegistryError::Settings { detail: describe(&error) })?;
        Ok(Self { settings })
    }
}

#[async_trait]
impl SchemaRegistry for HttpRegistry {
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(registered) => Ok(registered.id),
            Err(error) if is_refusal(&error) => {
                Err(RegistryError::Refused { subject: subject.to_owned(), detail: describe(&error) })
            }
            Err(error) => Err(RegistryError::Unavailable { detail: describe(&error) }),
        }
    }

    async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(registered.schema),
            Err(error) if error_code(&error) == Some(SCHEMA_NOT_FOUND) => Err(RegistryError::UnknownId { id }),
            Err(error) => Err(RegistryError::Unavailable { detail: describe(&error) }),
        }
    }
}

fn base_url(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// Returns the registry's own error code: an HTTP status, optionally followed by two more digits.
fn error_code(error: &SRCError) -> Option<u32> {
    error.source().and_then(|source| source.downcast_ref::<RawError>()).map(|raw| raw.error_code)
}

/// Returns whether the registry found the schema incompatible or invalid, which a retry does not change.
fn is_refusal(error: &SRCError) -> bool {
    matches!(error_code(error), Some(409 | 422 | 40_900..=40_999 | 42_200..=42_299))
}

fn describe(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}
