//! The gate: today's schemas and all their earlier versions can read each other (`FULL_TRANSITIVE`).

use std::error::Error;

use apache_avro::{
    Schema,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};
use serde_json::Value;

use crate::{
    catalog::{self, SchemaFile, SchemaPath},
    history::{self, Past},
};

/// Why `earlier` and `today` can't stand for the same event; the reason names the field where there is one.
fn breaks(earlier: &str, today: &str) -> Vec<String> {
    let parse = |text| Schema::parse_str(text).map_err(|error| vec![format!("isn't valid Avro: {error}")]);
    let (old, new) = match (parse(earlier), parse(today)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(reason), _) | (_, Err(reason)) => return reason,
    };
    let mut reasons = logical_type_changes(earlier, today);
    for (what, writer, reader) in
        [("today's can't read the earlier", &old, &new), ("the earlier can't read today's", &new, &old)]
    {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => {
                reasons.push(format!("{what} in some cases: {}", partly_read(writer, reader).join(", ")));
            }
            Err(error) => reasons.push(format!("{what}: {}", chain(&error))),
        }
    }
    reasons
}

/// The fields that `reader` reads only in some cases.
fn partly_read(writer: &Schema, reader: &Schema) -> Vec<String> {
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

/// Avro resolves milliseconds as microseconds without a word; here a field keeps its logical type.
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

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Everything that is wrong with today's schemas, given how they once were.
fn gate(files: &[SchemaFile], past: &[Past]) -> Vec<String> {
    let kept = files
        .iter()
        .filter(|file| file.path.kept.is_some())
        .map(|file| (file.path.clone(), "kept".to_owned(), file.text.as_str()));
    let committed = past.iter().filter_map(|past| {
        let path = SchemaPath::parse(&past.name)?;
        Some((path, format!("git {:.10}", past.blob), past.text.as_str()))
    });
    let mut reasons = Vec::new();
    for (path, origin, earlier) in kept.chain(committed) {
        let mut fail = |what: String| {
            let number = path.kept.map(|number| format!(".{number}")).unwrap_or_default();
            reasons.push(format!("schemas/{}/{}{number}.avsc ({origin}): {what}", path.aggregate, path.event));
        };
        let today = files.iter().find(|file| file.path == SchemaPath { kept: None, ..path.clone() });
        let Some(today) = today else {
            fail("the event is gone, but stores may have it".to_owned());
            continue;
        };
        let broken = breaks(earlier, &today.text);
        if broken.is_empty() && Schema::parse_str(earlier).is_ok_and(|schema| !path.is_read(&schema)) {
            fail(
                "what was written with it can't be read: keep it as <Event>.<n>.avsc and list it in events!".to_owned(),
            );
        }
        broken.into_iter().for_each(fail);
    }
    reasons
}

#[test]
fn schemas_resolve_against_everything_they_ever_were() {
    let past = history::past(&catalog::workspace());
    eprintln!("compared with {} versions from git", past.len());
    let reasons = gate(&catalog::files(), &past);
    assert!(reasons.is_empty(), "{}", reasons.join("\n"));
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "Tried", "namespace": "catacloud.test", "fields": [{fields}]}}"#)
}

const NAME: &str = r#"{"name": "name", "type": "string"}"#;

#[test]
fn optional_fields_symbols_and_words_may_change() {
    let noted = format!(r#"{NAME}, {{"name": "note", "type": ["null", "string"], "default": null, "doc": "x"}}"#);
    assert_eq!(breaks(&record(NAME), &record(&noted)), Vec::<String>::new());
    assert_eq!(breaks(&record(&noted), &record(NAME)), Vec::<String>::new());

    let role = |symbols: &str| {
        let kind = format!(r#"{{"type": "enum", "name": "Role", "symbols": [{symbols}], "default": "VIEWER"}}"#);
        record(&format!(r#"{{"name": "role", "type": {kind}}}"#))
    };
    assert_eq!(breaks(&role(r#""VIEWER""#), &role(r#""VIEWER", "AUDITOR""#)), Vec::<String>::new());
}

#[test]
fn a_required_field_can_neither_go_nor_come() {
    let required = record(&format!(r#"{NAME}, {{"name": "bytes", "type": "long"}}"#));
    let field = "Field 'bytes' in reader schema must have a default value";
    let gone = breaks(&required, &record(NAME));
    assert_eq!(gone, [format!("the earlier can't read today's: Incompatible schemata! {field}")]);
    let come = breaks(&record(NAME), &required);
    assert_eq!(come, [format!("today's can't read the earlier: Incompatible schemata! {field}")]);
}

#[test]
fn a_type_can_not_change() {
    let typed = |kind: &str| record(&format!(r#"{{"name": "bytes", "type": {kind}}}"#));
    let fails = |earlier: &str, today: &str| {
        let reasons = breaks(&typed(earlier), &typed(today));
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
fn an_event_can_not_go_and_its_earlier_versions_are_kept() {
    let files = catalog::files();
    let past = |name: &str, text: String| [Past { name: name.to_owned(), blob: "0123456789abcdef".to_owned(), text }];

    let gone = gate(&files, &past("job/JobForgotten.avsc", record(NAME)));
    let expected = "schemas/job/JobForgotten.avsc (git 0123456789): the event is gone, but stores may have it";
    assert_eq!(gone, [expected]);

    let today = files.iter().find(|file| file.name == "job/JobQueued.avsc").unwrap();
    assert_eq!(gate(&files, &past(&today.name, today.text.clone())), Vec::<String>::new());
    let mut earlier: Value = serde_json::from_str(&today.text).unwrap();
    let note = serde_json::json!({"name": "note", "type": ["null", "string"], "default": null});
    earlier["fields"].as_array_mut().unwrap().push(note);
    let lost = gate(&files, &past(&today.name, earlier.to_string()));
    assert_eq!(lost.len(), 1);
    assert!(lost[0].contains("job/JobQueued.avsc") && lost[0].contains("can't be read"), "{lost:?}");
}
