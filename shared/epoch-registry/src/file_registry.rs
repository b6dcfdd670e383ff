//! A registry that is a directory of schemas.
//!
//! The problem: readers that expect Confluent's wire format, in an installation that has no registry to run.
//!
//! The invariant: all who have the same directory give a schema the same number, without asking each other: it is folded out of the
//! schema's fingerprint. Two schemas that would share one are an error when the directory is opened.

use std::{collections::HashMap, fs, path::Path};

use async_trait::async_trait;
use epoch::avro::SchemaText;

use crate::{RegistryError, SchemaRegistry};

/// How deep schemas may lie: `schemas/<aggregate>/<Event>.avsc`, and one to spare.
const DEPTH: u32 = 3;

/// The schemas below a directory, as they were when it was opened.
pub struct FileRegistry {
    schemas: HashMap<u32, SchemaText>,
}

impl FileRegistry {
    /// Reads all `.avsc` files below `directory`.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] names the file or directory that can't be used, and says why.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let mut schemas = HashMap::new();
        let mut open = vec![(directory.as_ref().to_owned(), 1)];
        while let Some((directory, depth)) = open.pop() {
            for entry in fs::read_dir(&directory).map_err(|error| unusable(&directory, &error))? {
                let path = entry.map_err(|error| unusable(&directory, &error))?.path();
                if path.is_dir() && depth < DEPTH {
                    open.push((path, depth + 1));
                } else if path.extension().is_some_and(|extension| extension == "avsc") {
                    let json = fs::read_to_string(&path).map_err(|error| unusable(&path, &error))?;
                    let schema = SchemaText::parse(&json).map_err(|error| unusable(&path, &error))?;
                    insert(&mut schemas, schema).map_err(|error| unusable(&path, &error))?;
                }
            }
        }
        Ok(Self { schemas })
    }
}

/// Takes a schema in, unless another one has its number.
fn insert(schemas: &mut HashMap<u32, SchemaText>, schema: SchemaText) -> Result<(), String> {
    let number = number(&schema);
    match schemas.get(&number) {
        Some(other) if other.id != schema.id => Err(format!("schema {} has the same number {number}", other.record)),
        _ => {
            schemas.insert(number, schema);
            Ok(())
        }
    }
}

/// A positive number of 31 bits, since to Java's clients it is an `int`.
fn number(schema: &SchemaText) -> u32 {
    let [a, b, c, d, e, f, g, h] = schema.id.get().to_be_bytes();
    u32::from_be_bytes([(a ^ e) & 0x7F, b ^ f, c ^ g, d ^ h])
}

fn unusable(path: &Path, error: &impl ToString) -> RegistryError {
    RegistryError::Directory { path: path.display().to_string(), detail: error.to_string() }
}

#[async_trait]
impl SchemaRegistry for FileRegistry {
    async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let schema = SchemaText::parse(schema)?;
        let number = number(&schema);
        match self.schemas.get(&number) {
            Some(known) if known.id == schema.id => Ok(number),
            _ => Err(RegistryError::Refused {
                subject: subject.to_owned(),
                detail: format!("no file has schema {} of {}", schema.id, schema.record),
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

    use super::{FileRegistry, RegistryError, SchemaRegistry, insert, number};

    const MADE: &str = r#"{"type":"record","name":"Made","namespace":"test","fields":[]}"#;
    const LOST: &str = r#"{"type":"record","name":"Lost","namespace":"test","fields":[]}"#;

    #[tokio::test]
    async fn a_directory_gives_each_schema_its_number() {
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
    fn what_is_not_a_schema_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("Bad.avsc"), r#"{"type":"long"}"#).unwrap();
        let error = FileRegistry::open(&directory).err().unwrap();
        assert!(matches!(&error, RegistryError::Directory { path, .. } if path.ends_with("Bad.avsc")), "{error}");
        let missing = directory.path().join("missing");
        assert!(matches!(FileRegistry::open(missing), Err(RegistryError::Directory { .. })));
    }

    #[test]
    fn two_schemas_never_share_a_number() {
        let with = |id: u64, record: &str| SchemaText {
            id: SchemaId::new(id),
            record: record.to_owned(),
            json: String::new(),
        };
        let (one, other) = (with(0x0000_0001_0000_0002, "test.Made"), with(0x0000_0002_0000_0001, "test.Lost"));
        assert_eq!((number(&one), number(&other)), (3, 3));
        assert_eq!(number(&with(0xFFFF_FFFF_0000_0000, "x")), 0x7FFF_FFFF);
        let mut schemas = HashMap::new();
        insert(&mut schemas, one.clone()).unwrap();
        insert(&mut schemas, one).unwrap();
        let error = insert(&mut schemas, other).unwrap_err();
        assert!(error.contains("test.Made"), "{error}");
    }
}
