//! A registry that speaks Confluent's HTTP API, as those of Confluent, Redpanda, Karapace and Apicurio do.
//!
//! The problem: an answer "no" and no answer look alike, and only one of them is worth another try.
//!
//! The invariant: "there is no such schema" and "it is refused" are only said when the registry said so, with its own error code;
//! everything else, a proxy's answer too, means "try again".

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};

use crate::{RegistryError, SchemaRegistry};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Confluent's error code: there is no schema with this id.
const SCHEMA_NOT_FOUND: u32 = 40_403;

/// A registry behind URLs.
pub struct HttpRegistry {
    settings: SrSettings,
}

impl HttpRegistry {
    /// The registry at these URLs, as in `http://registry:8081`, which are tried in turn. It needn't be there yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when there is no URL or no client can be made.
    pub fn new(urls: &[impl AsRef<str>]) -> Result<Self, RegistryError> {
        let Some((first, others)) = urls.split_first() else {
            return Err(RegistryError::Settings { detail: "no URL".to_owned() });
        };
        let mut builder = SrSettings::new_builder(base(first.as_ref()));
        for url in others {
            builder.add_url(base(url.as_ref()));
        }
        let settings = builder.set_timeout(TIMEOUT).build();
        let settings = settings.map_err(|error| RegistryError::Settings { detail: described(&error) })?;
        Ok(Self { settings })
    }
}

#[async_trait]
impl SchemaRegistry for HttpRegistry {
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(registered) => Ok(registered.id),
            Err(error) if refused(&error) => {
                Err(RegistryError::Refused { subject: subject.to_owned(), detail: described(&error) })
            }
            Err(error) => Err(RegistryError::Unavailable { detail: described(&error) }),
        }
    }

    async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(registered.schema),
            Err(error) if code(&error) == Some(SCHEMA_NOT_FOUND) => Err(RegistryError::UnknownId { id }),
            Err(error) => Err(RegistryError::Unavailable { detail: described(&error) }),
        }
    }
}

fn base(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// The registry's own error code: an HTTP status, or one with two more digits.
fn code(error: &SRCError) -> Option<u32> {
    error.source().and_then(|source| source.downcast_ref::<RawError>()).map(|raw| raw.error_code)
}

/// Incompatible or not valid: it would be refused again.
fn refused(error: &SRCError) -> bool {
    matches!(code(error), Some(409 | 422 | 40_900..=40_999 | 42_200..=42_299))
}

fn described(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}
