//! Current schemas and all their earlier versions can read each other (`FULL_TRANSITIVE`).

use apache_avro::{
    Schema,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};
use epoch::error_chain;
use serde_json::Value;

use crate::{
    catalog::{self, SchemaFile, SchemaPath},
    history::{self, PastSchema},
};

/// Returns the reasons why two schemas of an event are incompatible, with the field where there is one.
fn incompatibilities(earlier: &str, today: &str) -> Vec<String> {
    let parse = |text| Schema::parse_str(text).map_err(|error| vec![format!("is not valid Avro: {error}")]);
    let (old, new) = match (parse(earlier), parse(today)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(reason), _) | (_, Err(reason)) => return reason,
    };
    let mut reasons = logical_type_changes(earlier, today);
    for (direction, writer, reader) in [
        ("the current schema cannot read the earlier one", &old, &new),
        ("the earlier schema cannot read the current one", &new, &old),
    ] {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => {
                reasons.push(format!(
                    "{direction} in some cases: {}",
                    partially_readable_fields(writer, reader).join(", ")
                ));
            }
            Err(error) => reasons.push(format!("{direction}: {}", error_chain(&error))),
        }
    }
    reasons
}

/// Returns the fields of `reader` that are readable only for some values.
fn partially_readable_fields(writer: &Schema, reader: &Schema) -> Vec<String> {
    let (Schema::Record(writer), Schema::Record(reader)) = (writer, reader) else { return Vec::new() };
    reader
        .fields
        .iter()
        .filter(|field| {
            writer.fields.iter().any(|written| {
                written.name == field.name
                    && SchemaCompatibility::can_read(&written.schema, &field.schema) != Ok(Compatibility::Full)
            })
        })
        .map(|field| format!("field '{}'", field.name))
        .collect()
}

/// Returns the fields whose logical type changed. Avro's resolution accepts that: it would read milliseconds as microseconds.
fn logical_type_changes(earlier: &str, today: &str) -> Vec<String> {
    let (Ok(earlier), Ok(today)) = (serde_json::from_str::<Value>(earlier), serde_json::from_str::<Value>(today))
    else {
        return Vec::new();
    };
    let fields = |schema: &Value| schema["fields"].as_array().cloned().unwrap_or_default();
    let today = fields(&today);
    fields(&earlier)
        .iter()
        .filter(|old| {
            let new = today.iter().find(|new| new["name"] == old["name"]);
            new.is_some_and(|new| logical_types(&old["type"]) != logical_types(&new["type"]))
        })
        .map(|old| format!("the logical type of field '{}' changed", old["name"].as_str().unwrap_or_default()))
        .collect()
}

fn logical_types(node: &Value) -> Vec<&Value> {
    match node {
        Value::Array(variants) => variants.iter().flat_map(logical_types).collect(),
        Value::Object(members) => {
            node.get("logicalType").into_iter().chain(members.values().flat_map(logical_types)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the violations of the current schemas against their earlier versions.
fn violations(files: &[SchemaFile], past: &[PastSchema]) -> Vec<String> {
    let earlier_files = files
        .iter()
        .filter(|file| file.path.earlier.is_some())
        .map(|file| (file.path.clone(), "file".to_owned(), file.text.as_str()));
    let committed = past.iter().filter_map(|past| {
        let path = SchemaPath::parse(&past.name)?;
        Some((path, format!("git {:.10}", past.blob), past.text.as_str()))
    });
    let mut reasons = Vec::new();
    for (path, origin, earlier) in earlier_files.chain(committed) {
        let mut fail = |reason: String| {
            let number = path.earlier.map(|number| format!(".{number}")).unwrap_or_default();
            reasons.push(format!("schemas/{}/{}{number}.avsc ({origin}): {reason}", path.aggregate, path.event));
        };
        let today = files.iter().find(|file| file.path == SchemaPath { earlier: None, ..path.clone() });
        let Some(today) = today else {
            fail("the event was removed, but stores may contain it".to_owned());
            continue;
        };
        let incompatibilities = incompatibilities(earlier, &today.text);
        if incompatibilities.is_empty() && Schema::parse_str(earlier).is_ok_and(|schema| !path.is_readable(&schema)) {
            fail("its events are unreadable: keep it as <Event>.<n>.avsc and list it in events!".to_owned());
        }
        incompatibilities.into_iter().for_each(fail);
    }
    reasons
}

#[test]
fn schemas_are_compatible_with_all_earlier_versions() {
    let past = history::past(&catalog::workspace());
    eprintln!("compared with {} versions from git", past.len());
    let reasons = violations(&catalog::files(), &past);
    assert!(reasons.is_empty(), "{}", reasons.join("\n"));
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "Tried", "namespace": "catacloud.test", "fields": [{fields}]}}"#)
}

const NAME: &str = r#"{"name": "name", "type": "string"}"#;

#[test]
fn optional_fields_symbols_and_docs_may_change() {
    let noted = format!(r#"{NAME}, {{"name": "note", "type": ["null", "string"], "default": null, "doc": "x"}}"#);
    assert_eq!(incompatibilities(&record(NAME), &record(&noted)), Vec::<String>::new());
    assert_eq!(incompatibilities(&record(&noted), &record(NAME)), Vec::<String>::new());

    let role = |symbols: &str| {
        let kind = format!(r#"{{"type": "enum", "name": "Role", "symbols": [{symbols}], "default": "VIEWER"}}"#);
        record(&format!(r#"{{"name": "role", "type": {kind}}}"#))
    };
    assert_eq!(incompatibilities(&role(r#""VIEWER""#), &role(r#""VIEWER", "AUDITOR""#)), Vec::<String>::new());
}

#[test]
fn required_fields_are_neither_added_nor_removed() {
    let required = record(&format!(r#"{NAME}, {{"name": "bytes", "type": "long"}}"#));
    let field = "Field 'bytes' in reader schema must have a default value";
    let removed = incompatibilities(&required, &record(NAME));
    assert_eq!(removed, [format!("the earlier schema cannot read the current one: Incompatible schemata! {field}")]);
    let added = incompatibilities(&record(NAME), &required);
    assert_eq!(added, [format!("the current schema cannot read the earlier one: Incompatible schemata! {field}")]);
}

#[test]
fn field_types_do_not_change() {
    let typed = |kind: &str| record(&format!(r#"{{"name": "bytes", "type": {kind}}}"#));
    let fails = |earlier: &str, today: &str| {
        let reasons = incompatibilities(&typed(earlier), &typed(today));
        assert!(!reasons.is_empty(), "{earlier} became {today}");
        assert!(reasons.iter().all(|reason| reason.to_lowercase().contains("field 'bytes'")), "{reasons:?}");
    };
    fails(r#""long""#, r#""string""#);
    fails(r#""int""#, r#""long""#);
    fails(r#""long""#, r#"["null", "long"]"#);
    fails(r#"{"type": "array", "items": "long"}"#, r#""long""#);
    fails(r#"{"type": "string", "logicalType": "uuid"}"#, r#""string""#);
    let instant = |unit: &str| format!(r#"{{"type": "long", "logicalType": "timestamp-{unit}"}}"#);
    fails(&instant("millis"), &instant("micros"));
}

#[test]
fn removed_events_and_unlisted_versions_are_violations() {
    let files = catalog::files();
    let past =
        |name: &str, text: String| [PastSchema { name: name.to_owned(), blob: "0123456789abcdef".to_owned(), text }];

    let removed = violations(&files, &past("job/JobForgotten.avsc", record(NAME)));
    let expected = "schemas/job/JobForgotten.avsc (git 0123456789): the event was removed, but stores may contain it";
    assert_eq!(removed, [expected]);

    let today = files.iter().find(|file| file.name == "job/JobQueued.avsc").unwrap();
    assert_eq!(violations(&files, &past(&today.name, today.text.clone())), Vec::<String>::new());
    let mut earlier: Value = serde_json::from_str(&today.text).unwrap();
    let note = serde_json::json!({"name": "note", "type": ["null", "string"], "default": null});
    earlier["fields"].as_array_mut().unwrap().push(note);
    let unlisted = violations(&files, &past(&today.name, earlier.to_string()));
    assert_eq!(unlisted.len(), 1);
    assert!(unlisted[0].contains("job/JobQueued.avsc") && unlisted[0].contains("unreadable"), "{unlisted:?}");
}
