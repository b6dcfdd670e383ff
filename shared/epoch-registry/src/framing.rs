//! Cache between event schemas and their registry ids.
//!
//! Each schema is registered once per topic, and each id is looked up once.
//!
//! Subjects are `<topic>-<record>`, Confluent's `TopicRecordNameStrategy`. A topic carries several event types, so one subject per
//! topic would force them into one shape. A subject per record would couple installations that share a registry.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use epoch::{avro::SchemaText, event::SchemaId, message::Frame, retry::RetryPolicy};
use tokio_util::sync::CancellationToken;

use crate::{error::RegistryError, schema_registry::SchemaRegistry};

/// A registry and a cache of its answers.
pub struct Framing {
    registry: Arc<dyn SchemaRegistry>,
    /// The schemas that may be registered.
    declared: HashMap<SchemaId, SchemaText>,
    /// Ids by topic, because each topic has its own subjects.
    ids: RwLock<HashMap<String, HashMap<SchemaId, u32>>>,
    schemas: RwLock<HashMap<u32, SchemaId>>,
}

impl Framing {
    /// Creates a framing for events with these schemas.
    ///
    /// `schemas` lists every schema that is published, including earlier versions, in the format of
    /// [`DomainEvent::SCHEMAS`](epoch::DomainEvent::SCHEMAS).
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] when a schema does not describe an event.
    pub fn new(registry: Arc<dyn SchemaRegistry>, schemas: &[&str]) -> Result<Self, RegistryError> {
        let mut declared = HashMap::with_capacity(schemas.len());
        for json in schemas {
            let schema = SchemaText::parse(json)?;
            declared.insert(schema.id, schema);
        }
        Ok(Self { registry, declared, ids: RwLock::default(), schemas: RwLock::default() })
    }

    /// Returns the frame of an event with this schema, and registers the schema for the topic if necessary.
    ///
    /// # Errors
    /// [`RegistryError`] when the schema has no id yet and cannot be registered now.
    pub async fn frame(&self, topic: &str, schema: SchemaId) -> Result<Frame, RegistryError> {
        self.register(topic, schema).await.map(Frame::Registered)
    }

    async fn register(&self, topic: &str, schema: SchemaId) -> Result<u32, RegistryError> {
        if let Some(id) = self.known_id(topic, schema) {
            return Ok(id);
        }
        let declared = self.declared.get(&schema).ok_or(RegistryError::NotDeclared { schema })?;
        let subject = format!("{topic}-{}", declared.record);
        let id = counted("register", self.registry.register(&subject, &declared.json).await)?;
        tracing::info!(subject, %schema, schema_id = id, "schema registered");
        write(&self.ids).entry(topic.to_owned()).or_default().insert(schema, id);
        write(&self.schemas).insert(id, schema);
        Ok(id)
    }

    /// Returns the schema of a frame, or the id to look up if it is not cached.
    pub(crate) fn known(&self, frame: Frame) -> Result<SchemaId, u32> {
        match frame {
            Frame::Fingerprint(schema) => Ok(schema),
            Frame::Registered(id) => self.known_schema(id).ok_or(id),
        }
    }

    /// Looks a schema up until the registry returns it, or returns `None` when stopped.
    ///
    /// Calls `failed_lookup` with the error and the attempt number after each failure. An unknown id is retried as well: the
    /// registry may be a lagging replica or may be restored later, and skipping the event would lose it.
    pub(crate) async fn wait_for(
        &self,
        id: u32,
        subscription: &str,
        stop: &CancellationToken,
        failed_lookup: impl Fn(&RegistryError, u32),
    ) -> Option<SchemaId> {
        for attempt in 1.. {
            match stop.run_until_cancelled(self.schema(id)).await? {
                Ok(schema) => return Some(schema),
                Err(error) => {
                    metrics::counter!("epoch_bus_waits_for_schema_total", "subscription" => subscription.to_owned())
                        .increment(1);
                    failed_lookup(&error, attempt);
                }
            }
            stop.run_until_cancelled(tokio::time::sleep(RetryPolicy::HANDLER.wait(attempt))).await?;
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

    fn known_id(&self, topic: &str, schema: SchemaId) -> Option<u32> {
        read(&self.ids).get(topic)?.get(&schema).copied()
    }
}

fn counted<T>(operation: &'static str, result: Result<T, RegistryError>) -> Result<T, RegistryError> {
    let label = if result.is_ok() { "ok" } else { "failed" };
    metrics::counter!("epoch_registry_requests_total", "operation" => operation, "result" => label).increment(1);
    result
}

// A poisoned lock is safe to use: every change is a single insertion, so a panic leaves no partial state.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
