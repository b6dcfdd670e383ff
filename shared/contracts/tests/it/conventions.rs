//! Conventions that every schema follows.

use contracts::{job::FileRole, organization::Role};
use serde_json::Value;

use crate::catalog::{self, SchemaFile};

/// Collects all types in a schema with their paths, outermost first.
fn types<'a>(place: &str, node: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    found.push((place.to_owned(), node));
    match node {
        Value::Array(variants) => variants.iter().for_each(|variant| types(place, variant, found)),
        Value::Object(_) => {
            for field in node["fields"].as_array().into_iter().flatten() {
                types(&format!("{place}.{}", field["name"].as_str().unwrap_or("?")), &field["type"], found);
            }
            for inner in ["items", "values", "type"] {
                node.get(inner).into_iter().for_each(|inner| types(place, inner, found));
            }
        }
        _ => {}
    }
}

fn is_documented(node: &Value) -> bool {
    node["doc"].as_str().is_some_and(|doc| !doc.trim().is_empty())
}

fn has_logical_type(node: &Value, name: &str) -> bool {
    let mut found = Vec::new();
    types("", node, &mut found);
    found.iter().any(|(_, node)| node["logicalType"] == name)
}

fn violations(file: &SchemaFile) -> Vec<String> {
    let json: Value = serde_json::from_str(&file.text).unwrap();
    let mut violations = Vec::new();
    let mut demand = |holds: bool, place: &str, requirement: &str| {
        if !holds {
            violations.push(format!("schemas/{}: {place} {requirement}", file.name));
        }
    };
    demand(json["type"] == "record", "the schema", "must be a record");
    demand(json["name"] == file.path.event, "the name", "must match the file");
    demand(
        json["namespace"] == format!("catacloud.{}", file.path.aggregate),
        "the namespace",
        "must match the directory",
    );

    let mut found = Vec::new();
    types(&file.path.event, &json, &mut found);
    for (place, node) in found {
        let kind = node["type"].as_str().unwrap_or_default();
        demand(!["float", "double"].iter().any(|float| node == float), &place, "must not be a float");
        demand(!["record", "enum", "fixed"].contains(&kind) || is_documented(node), &place, "must have a doc");
        demand(kind != "enum" || node["default"].is_string(), &place, "must have a default symbol");
        for field in node["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let place = format!("{place}.{name}");
            demand(is_documented(field), &place, "must have a doc");
            if let Some(variants) = field["type"].as_array() {
                let optional =
                    variants.len() == 2 && variants[0] == "null" && field.get("default") == Some(&Value::Null);
                demand(optional, &place, "must be [\"null\", …] with default null");
            }
            if name.ends_with("_id") || name.ends_with("_ids") {
                demand(has_logical_type(&field["type"], "uuid"), &place, "must be a uuid");
            }
            if name.ends_with("_at") {
                demand(has_logical_type(&field["type"], "timestamp-millis"), &place, "must be a timestamp-millis");
            }
            if name == "bytes" || name.ends_with("_bytes") || name.ends_with("_ms") {
                demand(field["type"] == "long", &place, "must be a long");
            }
        }
    }
    violations
}

#[test]
fn schemas_follow_the_conventions() {
    let violations: Vec<String> = catalog::files().iter().flat_map(violations).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn violations_covers_each_convention() {
    let text = r#"{"type": "record", "name": "Broken", "namespace": "elsewhere", "fields": [
        {"name": "user_id", "type": "string", "doc": ""},
        {"name": "seen_at", "type": ["null", "long"]},
        {"name": "kind", "type": {"type": "array", "items": {"type": "enum", "name": "Kind", "symbols": ["A"]}}},
        {"name": "bytes", "type": "double"}]}"#;
    let name = "job/Torn.avsc".to_owned();
    let path = catalog::SchemaPath::parse(&name).unwrap();
    let schema = apache_avro::Schema::parse_str(text).unwrap();
    let violations = violations(&SchemaFile { name, path, text: text.to_owned(), schema });
    let expected = [
        "the name must match the file",
        "the namespace must match the directory",
        "Torn must have a doc",
        "Torn.user_id must have a doc",
        "Torn.user_id must be a uuid",
        "Torn.seen_at must have a doc",
        "Torn.seen_at must be [\"null\", …] with default null",
        "Torn.seen_at must be a timestamp-millis",
        "Torn.kind must have a doc",
        "Torn.bytes must have a doc",
        "Torn.bytes must be a long",
        "Torn.kind must have a doc",
        "Torn.kind must have a default symbol",
        "Torn.bytes must not be a float",
    ];
    assert_eq!(violations, expected.map(|violation| format!("schemas/job/Torn.avsc: {violation}")));
}

#[test]
fn rust_enums_contain_every_symbol() {
    for file in catalog::files() {
        let json: Value = serde_json::from_str(&file.text).unwrap();
        let mut found = Vec::new();
        types(&file.path.event, &json, &mut found);
        for (place, node) in found.into_iter().filter(|(_, node)| node["type"] == "enum") {
            for symbol in node["symbols"].as_array().unwrap() {
                let known = match node["name"].as_str() {
                    Some("Role") => serde_json::from_value::<Role>(symbol.clone()).is_ok(),
                    Some("FileRole") => serde_json::from_value::<FileRole>(symbol.clone()).is_ok(),
                    _ => panic!("{place}: add the enum to this test"),
                };
                assert!(known, "{place}: {symbol} is not in the Rust enum");
            }
        }
    }
}
