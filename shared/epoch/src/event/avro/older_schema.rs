//! Reading what was written with an earlier schema.
//!
//! The problem: once an event has a new schema its whole past is "earlier", and Avro's resolution, which goes by way of a tree of
//! values, takes several times as long as reading.
//!
//! The invariant: the result is what Avro's resolution gives. The usual change, new fields behind those that there were, is done
//! on the bytes: a payload followed by the encoded defaults is a payload of today. Anything else is resolved.

use apache_avro::{
    AvroResult, Schema, from_value, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use serde::de::DeserializeOwned;

/// Reads payloads of one earlier schema.
pub(super) enum Earlier {
    /// Today's fields are those of this schema and then some more.
    Extended {
        /// The reader for the earlier schema itself.
        reader: GenericDatumReader<'static>,
        /// The fields that came later, encoded.
        defaults: Vec<u8>,
    },
    /// The reader that resolves.
    Resolved(GenericDatumReader<'static>),
}

impl Earlier {
    pub(super) fn new(schema: &'static Schema, today: &'static Schema) -> AvroResult<Self> {
        let resolving = GenericDatumReader::builder(schema).reader_schema(today).human_readable(true).build()?;
        let Some(defaults) = added(schema, today) else { return Ok(Self::Resolved(resolving)) };
        let reader = GenericDatumReader::builder(schema).human_readable(true).build()?;
        Ok(Self::Extended { reader, defaults })
    }

    /// Reads from the front of `payload`, and takes from it what was read. `today` reads today's schema.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        today: &GenericDatumReader<'static>,
        payload: &mut &[u8],
    ) -> AvroResult<T> {
        match self {
            Self::Resolved(reader) => from_value(&reader.read_value(payload)?),
            Self::Extended { reader, defaults } => {
                let whole = *payload;
                // A payload that ends early must not go on in the defaults.
                reader.read_value(payload)?;
                let (datum, _) = whole.split_at(whole.len() - payload.len());
                today.read_deser(&mut [datum, defaults].concat().as_slice())
            }
        }
    }
}

/// The encoded defaults of the fields that `today` has behind those of `earlier`; `None` when that isn't all that is different.
fn added(earlier: &Schema, today: &Schema) -> Option<Vec<u8>> {
    let (Schema::Record(earlier), Schema::Record(today)) = (earlier, today) else { return None };
    let (kept, added) = today.fields.split_at_checked(earlier.fields.len())?;
    // Schemas are equal for Avro whatever their logical types; as documents they aren't.
    let document = |schema: &Schema| serde_json::to_value(schema).ok();
    let same = std::iter::zip(&earlier.fields, kept).all(|(old, new)| {
        let documents = document(&old.schema).zip(document(&new.schema));
        old.name == new.name && documents.is_some_and(|(old, new)| old == new)
    });
    if !same || earlier.name != today.name {
        return None;
    }
    let mut defaults = Vec::new();
    for field in added {
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

    use super::Earlier;

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
    struct Today {
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
        fn the_short_way_gives_what_resolution_gives(
            id in any::<u128>(),
            texts in prop::collection::vec(".{0,5}", 0..4),
            note in any::<Option<String>>(),
            behind in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let (earlier, today) = (schema(EARLIER), schema(&format!("{EARLIER}{ADDED}")));
            let short = Earlier::new(earlier, today).unwrap();
            let is_short = matches!(short, Earlier::Extended { .. });
            prop_assert!(is_short);
            let made = Made { id: uuid::Uuid::from_u128(id), texts, note };
            let writer = GenericDatumWriter::builder(earlier).human_readable(true).build().unwrap();
            let payload = writer.write_ser_to_vec(&made).unwrap();

            let resolving = GenericDatumReader::builder(earlier).reader_schema(today).build().unwrap();
            let expected: Today = from_value(&resolving.read_value(&mut payload.as_slice()).unwrap()).unwrap();
            prop_assert_eq!((expected.count, &expected.kind, expected.at), (300, &Kind::New, 7));
            let padded = [&payload[..], &behind].concat();
            let mut rest = padded.as_slice();
            let read: Today = short.read(&plain(today), &mut rest).unwrap();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(rest, behind);

            // However much is missing, it isn't taken from the defaults.
            for end in 0..payload.len() {
                prop_assert!(short.read::<Today>(&plain(today), &mut &payload[..end]).is_err());
            }
        }
    }

    #[test]
    fn other_changes_are_resolved() {
        let id = r#"{"name":"id","type":"long"}"#;
        let instant =
            |unit: &str| format!(r#"{{"name":"id","type":{{"type":"long","logicalType":"timestamp-{unit}"}}}}"#);
        let cases = [
            // A field between, one gone, one renamed, another type, another logical type, no default.
            (id.to_owned(), format!(r#"{{"name":"x","type":"long","default":1}},{id}"#)),
            (format!(r#"{id},{{"name":"x","type":"long","default":1}}"#), id.to_owned()),
            (id.to_owned(), r#"{"name":"key","aliases":["id"],"type":"long"}"#.to_owned()),
            (r#"{"name":"id","type":"int"}"#.to_owned(), id.to_owned()),
            (instant("millis"), instant("micros")),
            (id.to_owned(), format!(r#"{id},{{"name":"x","type":"long"}}"#)),
        ];
        for (earlier, today) in cases {
            let reader = Earlier::new(schema(&earlier), schema(&today)).unwrap();
            assert!(matches!(reader, Earlier::Resolved(_)), "{earlier} → {today}");
        }
    }
}
