//! Between an event's schema and its number in the registry.
//!
//! The problem: the registry is asked over the network; events come by the thousand.
//! The invariant: each schema and each number is asked for until there is an answer, and never again; see [the crate](crate).
//!
//! Subjects are `<topic>-<record>`, Confluent's TopicRecordNameStrategy: a topic has several kinds of events, so that one subject
//! for the whole topic would hold them all to one shape; and a subject named by the record alone would tie installations that
//! share a registry to each other.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use epoch::{avro::SchemaText, event::SchemaId, message::Frame, retry::RetryPolicy};
use tokio_util::sync::CancellationToken;

use crate::{RegistryError, SchemaRegistry};

/// A registry and what it has answered so far.
pub struct Framing {
    registry: Arc<dyn SchemaRegistry>,
    given: HashMap<SchemaId, SchemaText>,
    /// By topic, for the same schema may be in several.
    numbers: RwLock<HashMap<String, HashMap<SchemaId, u32>>>,
    schemas: RwLock<HashMap<u32, SchemaId>>,
}

impl Framing {
    /// `schemas` are those of all events that are published, earlier versions included, as
    /// [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS) has them.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] when a schema doesn't describe an event.
    pub fn new(registry: Arc<dyn SchemaRegistry>, schemas: &[&str]) -> Result<Self, RegistryError> {
        let mut given = HashMap::with_capacity(schemas.len());
        for json in schemas {
            let schema = SchemaText::parse(json)?;
            given.insert(schema.id, schema);
        }
        Ok(Self { registry, given, numbers: RwLock::default(), schemas: RwLock::default() })
    }

    /// What stands before the payload of an event with this schema, which is registered for the event's topic.
    ///
    /// # Errors
    /// [`RegistryError`] when it has no number so far.
    pub async fn frame(&self, topic: &str, schema: SchemaId) -> Result<Frame, RegistryError> {
        self.number(topic, schema).await.map(Frame::Registered)
    }

    async fn number(&self, topic: &str, schema: SchemaId) -> Result<u32, RegistryError> {
        if let Some(id) = self.known_number(topic, schema) {
            return Ok(id);
        }
        let given = self.given.get(&schema).ok_or(RegistryError::NotGiven { schema })?;
        let subject = format!("{topic}-{}", given.record);
        let asked = counted("register", self.registry.register(&subject, &given.json).await);
        let id = asked?;
        tracing::info!(subject, %schema, id, "schema is registered");
        write(&self.numbers).entry(topic.to_owned()).or_default().insert(schema, id);
        write(&self.schemas).insert(id, schema);
        Ok(id)
    }

    /// The schema that a frame names, or the number that the registry must be asked for.
    ///
    /// # Errors
    /// The number.
    pub fn known(&self, frame: Frame) -> Result<SchemaId, u32> {
        match frame {
            Frame::Fingerprint(schema) => Ok(schema),
            Frame::Registered(id) => self.known_schema(id).ok_or(id),
        }
    }

    /// The schema with this number: asks until there is an answer, and tells `waits` of each time that there was none, with their
    /// count; `None` when told to stop before. A number that the registry doesn't know may be of one that lags behind or was
    /// restored: it is asked again too, for whoever goes on without the event loses it.
    pub async fn wait_for(
        &self,
        id: u32,
        subscription: &str,
        stop: &CancellationToken,
        waits: impl Fn(&RegistryError, u32),
    ) -> Option<SchemaId> {
        for failed in 1.. {
            match stop.run_until_cancelled(self.schema(id)).await? {
                Ok(schema) => return Some(schema),
                Err(error) => {
                    metrics::counter!("epoch_bus_waits_for_schema_total", "subscription" => subscription.to_owned())
                        .increment(1);
                    waits(&error, failed);
                }
            }
            stop.run_until_cancelled(tokio::time::sleep(RetryPolicy::HANDLER.wait(failed))).await?;
        }
        None
    }

    fn known_schema(&self, id: u32) -> Option<SchemaId> {
        read(&self.schemas).get(&id).copied()
    }

    async fn schema(&self, id: u32) -> Result<SchemaId, RegistryError> {
        if let Some(schema) = self.known_schema(id) {
            return Ok(schema);
        }
        let json = counted("schema", self.registry.schema(id).await)?;
        let schema = SchemaText::parse(&json).map_err(|source| RegistryError::Unusable { id, source })?;
        write(&self.schemas).insert(id, schema.id);
        Ok(schema.id)
    }

    fn known_number(&self, topic: &str, schema: SchemaId) -> Option<u32> {
        read(&self.numbers).get(topic)?.get(&schema).copied()
    }
}

fn counted<T>(operation: &'static str, result: Result<T, RegistryError>) -> Result<T, RegistryError> {
    let label = if result.is_ok() { "ok" } else { "failed" };
    metrics::counter!("epoch_registry_requests_total", "operation" => operation, "result" => label).increment(1);
    result
}

// Every change is one insertion: nothing is half done where a thread panicked.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
