//! A schema registry backed by a directory, for installations without a registry server.
//!
//! The id of a schema is folded from its fingerprint. Processes with the same directory therefore use the same ids without
//! coordination. Two schemas with the same id are an error when the directory is opened.

use std::{collections::HashMap, fs, path::Path};

use async_trait::async_trait;
use epoch::avro::SchemaText;

use crate::{error::RegistryError, schema_registry::SchemaRegistry};

/// The maximum directory depth: `schemas/<aggregate>/<Event>.avsc` needs two levels, and one is spare.
const MAX_DEPTH: u32 = 3;

/// The schemas below a directory, read once when it is opened.
pub struct FileRegistry {
    schemas: HashMap<u32, SchemaText>,
}

impl FileRegistry {
    /// Reads all `.avsc` files below `directory`.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] with the path that cannot be read, is not a schema, or has another schema's id.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let mut schemas = HashMap::new();
        let mut open = vec![(directory.as_ref().to_owned(), 1)];
        while let Some((directory, depth)) = open.pop() {
            for entry in fs::read_dir(&directory).map_err(|error| directory_error(&directory, &error))? {
                let path = entry.map_err(|error| directory_error(&directory, &error))?.path();
                if path.is_dir() && depth < MAX_DEPTH {
                    open.push((path, depth + 1));
                } else if path.extension().is_some_and(|extension| extension == "avsc") {
                    let json = fs::read_to_string(&path).map_err(|error| directory_error(&path, &error))?;
                    let schema = SchemaText::parse(&json).map_err(|error| directory_error(&path, &error))?;
                    insert(&mut schemas, schema).map_err(|error| directory_error(&path, &error))?;
                }
            }
        }
        Ok(Self { schemas })
    }
}

/// Adds a schema, unless another one has its id.
fn insert(schemas: &mut HashMap<u32, SchemaText>, schema: SchemaText) -> Result<(), String> {
    let id = registry_id(&schema);
    match schemas.get(&id) {
        Some(other) if other.id != schema.id => Err(format!("schema {} has the same id {id}", other.record)),
        _ => {
            schemas.insert(id, schema);
            Ok(())
        }
    }
}

/// Returns a schema's id: 31 bits, because Java clients read it as a signed `int`.
fn registry_id(schema: &SchemaText) -> u32 {
    let [a, b, c, d, e, f, g, h] = schema.id.get().to_be_bytes();
    u32::from_be_bytes([(a ^ e) & 0x7F, b ^ f, c ^ g, d ^ h])
}

fn directory_error(path: &Path, error: &impl ToString) -> RegistryError {
    RegistryError::Directory { path: path.display().to_string(), detail: error.to_string() }
}

#[async_trait]
impl SchemaRegistry for FileRegistry {
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let schema = SchemaText::parse(schema)?;
        let id = registry_id(&schema);
        match self.schemas.get(&id) {
            Some(known) if known.id == schema.id => Ok(id),
            _ => Err(RegistryError::Refused {
                subject: subject.to_owned(),
                detail: format!("no file contains schema {} of {}", schema.id, schema.record),
            }),
        }
    }

    async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        self.schemas.get(&id).map(|schema| schema.json.clone()).ok_or(RegistryError::UnknownId { id })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use epoch::{avro::SchemaText, event::SchemaId};

    use super::{FileRegistry, RegistryError, SchemaRegistry, insert, registry_id};

    const MADE: &str = r#"{"type":"record","name":"Made","namespace":"test","fields":[]}"#;
    const LOST: &str = r#"{"type":"record","name":"Lost","namespace":"test","fields":[]}"#;

    #[tokio::test]
    async fn directory_assigns_each_schema_a_stable_id() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("thing");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("Made.avsc"), MADE).unwrap();
        fs::write(below.join("Made.1.avsc"), format!("{MADE}\n")).unwrap();
        fs::write(directory.path().join("README.md"), "not a schema").unwrap();
        let registry = FileRegistry::open(&directory).unwrap();
        let id = registry.register("t-test.Made", MADE).await.unwrap();
        assert_eq!(FileRegistry::open(&directory).unwrap().register("other", MADE).await, Ok(id));
        let text = registry.schema(id).await.unwrap();
        assert_eq!(SchemaText::parse(&text).unwrap().id, SchemaText::parse(MADE).unwrap().id);
        assert_eq!(registry.schema(id + 1).await, Err(RegistryError::UnknownId { id: id + 1 }));
        let refused = registry.register("t-test.Lost", LOST).await.unwrap_err();
        assert!(
            matches!(&refused, RegistryError::Refused { subject, detail }
            if subject == "t-test.Lost" && detail.contains("test.Lost")),
            "{refused}"
        );
    }

    #[test]
    fn open_names_the_file_that_is_not_a_schema() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("Bad.avsc"), r#"{"type":"long"}"#).unwrap();
        let error = FileRegistry::open(&directory).err().unwrap();
        assert!(matches!(&error, RegistryError::Directory { path, .. } if path.ends_with("Bad.avsc")), "{error}");
        let missing = directory.path().join("missing");
        assert!(matches!(FileRegistry::open(missing), Err(RegistryError::Directory { .. })));
    }

    #[test]
    fn insert_rejects_a_schema_with_another_schemas_id() {
        let with = |id: u64, record: &str| SchemaText {
            id: SchemaId::new(id),
            record: record.to_owned(),
            json: String::new(),
        };
        let (one, other) = (with(0x0000_0001_0000_0002, "test.Made"), with(0x0000_0002_0000_0001, "test.Lost"));
        assert_eq!((registry_id(&one), registry_id(&other)), (3, 3));
        assert_eq!(registry_id(&with(0xFFFF_FFFF_0000_0000, "x")), 0x7FFF_FFFF);
        let mut schemas = HashMap::new();
        insert(&mut schemas, one.clone()).unwrap();
        insert(&mut schemas, one).unwrap();
        let error = insert(&mut schemas, other).unwrap_err();
        assert!(error.contains("test.Made"), "{error}");
    }
}
