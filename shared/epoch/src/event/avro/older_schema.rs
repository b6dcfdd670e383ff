//! Reading payloads of earlier schemas without the cost of schema resolution.
//!
//! Once an event has a new schema, all its stored payloads have an earlier one. Avro resolves schemas through a tree of
//! values, which takes several times as long as plain reading. The most common change, appended fields, is therefore
//! done on the bytes: a payload followed by the encoded defaults of the new fields is a payload of the current schema.
//! The result equals Avro's resolution; all other changes use resolution.

use apache_avro::{
    AvroResult, Schema, from_value, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use serde::de::DeserializeOwned;

/// Reads payloads of one earlier schema as values of the current schema.
pub(super) enum OlderSchemaReader {
    /// The current schema has the fields of this schema followed by new ones.
    Extended {
        /// The reader for the earlier schema itself.
        reader: GenericDatumReader<'static>,
        /// The encoded defaults of the new fields.
        defaults: Vec<u8>,
    },
    /// Any other change: Avro's schema resolution.
    Resolved(GenericDatumReader<'static>),
}

impl OlderSchemaReader {
    pub(super) fn new(schema: &'static Schema, current: &'static Schema) -> AvroResult<Self> {
        let resolving = GenericDatumReader::builder(schema).reader_schema(current).human_readable(true).build()?;
        let Some(defaults) = appended_defaults(schema, current) else { return Ok(Self::Resolved(resolving)) };
        let reader = GenericDatumReader::builder(schema).human_readable(true).build()?;
        Ok(Self::Extended { reader, defaults })
    }

    /// Reads one datum and advances `payload` past it. `current` reads the current schema.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        current: &GenericDatumReader<'static>,
        payload: &mut &[u8],
    ) -> AvroResult<T> {
        match self {
            Self::Resolved(reader) => from_value(&reader.read_value(payload)?),
            Self::Extended { reader, defaults } => {
                let whole = *payload;
                // Find the datum's end first: a truncated payload must not continue into the defaults.
                reader.read_value(payload)?;
                let (datum, _) = whole.split_at(whole.len() - payload.len());
                current.read_deser(&mut [datum, defaults].concat().as_slice())
            }
        }
    }
}

/// Returns the encoded defaults of the fields that `current` appends to `earlier`, or `None` when the schemas differ
/// otherwise.
fn appended_defaults(earlier: &Schema, current: &Schema) -> Option<Vec<u8>> {
    let (Schema::Record(earlier), Schema::Record(current)) = (earlier, current) else { return None };
    let (common, appended) = current.fields.split_at_checked(earlier.fields.len())?;
    // Avro's schema equality ignores logical types, so compare the JSON documents.
    let document = |schema: &Schema| serde_json::to_value(schema).ok();
    let same = std::iter::zip(&earlier.fields, common).all(|(old, new)| {
        let documents = document(&old.schema).zip(document(&new.schema));
        old.name == new.name && documents.is_some_and(|(old, new)| old == new)
    });
    if !same || earlier.name != current.name {
        return None;
    }
    let mut defaults = Vec::new();
    for field in appended {
        let value = Value::try_from(field.default.clone()?).ok()?.resolve(&field.schema).ok()?;
        let writer = GenericDatumWriter::builder(&field.schema).human_readable(true).build().ok()?;
        defaults.extend(writer.write_value_to_vec(value).ok()?);
    }
    Some(defaults)
}

#[cfg(test)]
mod tests {
    use apache_avro::{Schema, from_value, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::OlderSchemaReader;

    fn schema(fields: &str) -> &'static Schema {
        let json = format!(r#"{{"type":"record","name":"Made","namespace":"test","fields":[{fields}]}}"#);
        Box::leak(Box::new(Schema::parse_str(&json).unwrap()))
    }

    const EARLIER: &str = r#"{"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"texts","type":{"type":"array","items":"string"}},
        {"name":"note","type":["null","string"],"default":null}"#;
    const ADDED: &str = r#",{"name":"count","type":"long","default":300},
        {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["Old","New"]},"default":"New"},
        {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
        {"name":"more","type":["null","long"],"default":null},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":7}"#;

    #[derive(Debug, Clone, PartialEq, Serialize)]
    struct Made {
        id: uuid::Uuid,
        texts: Vec<String>,
        note: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "Made")]
    struct Current {
        id: uuid::Uuid,
        texts: Vec<String>,
        note: Option<String>,
        count: i64,
        kind: Kind,
        tags: Vec<String>,
        more: Option<i64>,
        at: i64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Old,
        New,
    }

    fn plain(schema: &'static Schema) -> GenericDatumReader<'static> {
        GenericDatumReader::builder(schema).human_readable(true).build().unwrap()
    }

    proptest! {
        #[test]
        fn appending_defaults_equals_schema_resolution(
            id in any::<u128>(),
            texts in prop::collection::vec(".{0,5}", 0..4),
            note in any::<Option<String>>(),
            trailing in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let (earlier, current) = (schema(EARLIER), schema(&format!("{EARLIER}{ADDED}")));
            let extended = OlderSchemaReader::new(earlier, current).unwrap();
            let is_extended = matches!(extended, OlderSchemaReader::Extended { .. });
            prop_assert!(is_extended);
            let made = Made { id: uuid::Uuid::from_u128(id), texts, note };
            let writer = GenericDatumWriter::builder(earlier).human_readable(true).build().unwrap();
            let payload = writer.write_ser_to_vec(&made).unwrap();

            let resolving = GenericDatumReader::builder(earlier).reader_schema(current).build().unwrap();
            let expected: Current = from_value(&resolving.read_value(&mut payload.as_slice()).unwrap()).unwrap();
            prop_assert_eq!((expected.count, &expected.kind, expected.at), (300, &Kind::New, 7));
            let padded = [&payload[..], &trailing].concat();
            let mut rest = padded.as_slice();
            let read: Current = extended.read(&plain(current), &mut rest).unwrap();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(rest, trailing);

            // Missing bytes are never taken from the defaults.
            for end in 0..payload.len() {
                prop_assert!(extended.read::<Current>(&plain(current), &mut &payload[..end]).is_err());
            }
        }
    }

    #[test]
    fn other_schema_changes_use_resolution() {
        let id = r#"{"name":"id","type":"long"}"#;
        let instant =
            |unit: &str| format!(r#"{{"name":"id","type":{{"type":"long","logicalType":"timestamp-{unit}"}}}}"#);
        let cases = [
            // A field inserted, removed, renamed, of another type, of another logical type, without a default.
            (id.to_owned(), format!(r#"{{"name":"x","type":"long","default":1}},{id}"#)),
            (format!(r#"{id},{{"name":"x","type":"long","default":1}}"#), id.to_owned()),
            (id.to_owned(), r#"{"name":"key","aliases":["id"],"type":"long"}"#.to_owned()),
            (r#"{"name":"id","type":"int"}"#.to_owned(), id.to_owned()),
            (instant("millis"), instant("micros")),
            (id.to_owned(), format!(r#"{id},{{"name":"x","type":"long"}}"#)),
        ];
        for (earlier, current) in cases {
            let reader = OlderSchemaReader::new(schema(&earlier), schema(&current)).unwrap();
            assert!(matches!(reader, OlderSchemaReader::Resolved(_)), "{earlier} → {current}");
        }
    }
}
