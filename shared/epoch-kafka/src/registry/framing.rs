//! Between an event's schema and its number in the registry.
//!
//! The problem: the registry is asked over the network; events come by the thousand.
//! The invariant: each schema and each number is asked for until there is an answer, and never again; see [the module](super).
//!
//! Subjects are `<topic>-<record>`, Confluent's TopicRecordNameStrategy: a topic has several kinds of events, so that one subject
//! for the whole topic would hold them all to one shape; and a subject named by the record alone would tie installations that
//! share a registry to each other.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use epoch::{avro::SchemaText, event::SchemaId};

use super::{RegistryError, SchemaRegistry};

/// A registry and what it has answered so far.
pub(crate) struct Framing {
    registry: Arc<dyn SchemaRegistry>,
    given: HashMap<SchemaId, SchemaText>,
    /// By topic, for the same schema may be in several.
    numbers: RwLock<HashMap<String, HashMap<SchemaId, u32>>>,
    schemas: RwLock<HashMap<u32, SchemaId>>,
}

impl Framing {
    pub(crate) fn new(registry: Arc<dyn SchemaRegistry>, schemas: &[&str]) -> Result<Self, RegistryError> {
        let mut given = HashMap::with_capacity(schemas.len());
        for json in schemas {
            let schema = SchemaText::parse(json)?;
            given.insert(schema.id, schema);
        }
        Ok(Self { registry, given, numbers: RwLock::default(), schemas: RwLock::default() })
    }

    /// The number of an event's schema, registered for its topic.
    pub(crate) async fn number(&self, topic: &str, schema: SchemaId) -> Result<u32, RegistryError> {
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

    /// The schema with this number, if it was asked for before.
    pub(crate) fn known_schema(&self, id: u32) -> Option<SchemaId> {
        read(&self.schemas).get(&id).copied()
    }

    /// The schema with this number.
    pub(crate) async fn schema(&self, id: u32) -> Result<SchemaId, RegistryError> {
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
