//! The OpenAPI document of the public API is checked in, complete and consistent.
//!
//! `docs/openapi.json` makes changes of the API visible in review. To update it, run this test with
//! `CATACLOUD_UPDATE_OPENAPI=1`. `tools/openapi` lints it and compiles a client against its types.

use std::{collections::BTreeSet, env, fs, path::Path};

use reqwest::Method;
use serde_json::Value;

use crate::public_api::PublicApi;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

async fn served_document() -> Value {
    let api = PublicApi::start().await;
    let document = api.request(Method::GET, "/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    api.stop().await;
    document
}

/// Calls `visit` with each object in `value` and its JSON pointer.
fn for_each_object(value: &Value, pointer: &str, visit: &mut dyn FnMut(&str, &serde_json::Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(pointer, members);
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                for_each_object(member, &format!("{pointer}/{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                for_each_object(item, &format!("{pointer}/{index}"), visit);
            }
        }
        _ => {}
    }
}

/// Returns each operation with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                operations.push((format!("{method} {path}"), operation));
            }
        }
    }
    operations
}

#[tokio::test]
async fn openapi_document_equals_the_checked_in_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let served = format!("{}\n", serde_json::to_string_pretty(&served_document().await).unwrap());
    if env::var_os("CATACLOUD_UPDATE_OPENAPI").is_some() {
        fs::write(&path, &served).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap();
    assert!(
        served == checked_in,
        "the API differs from docs/openapi.json; review the change, then run \
         CATACLOUD_UPDATE_OPENAPI=1 cargo test -p catacloud openapi"
    );
}

#[tokio::test]
async fn openapi_references_resolve() {
    let document = served_document().await;
    let mut dangling = BTreeSet::new();
    for_each_object(&document, "", &mut |_, object| {
        let Some(reference) = object.get("$ref").and_then(Value::as_str) else { return };
        if document.pointer(reference.trim_start_matches('#')).is_none() {
            dangling.insert(reference.to_owned());
        }
    });
    assert_eq!(dangling, BTreeSet::new());
}

#[tokio::test]
async fn openapi_bodies_are_typed() {
    let document = served_document().await;
    let mut untyped = Vec::new();
    for_each_object(&document, "", &mut |pointer, object| {
        let is_object = object.get("type").is_some_and(|kind| kind == "object");
        let details = ["properties", "additionalProperties", "oneOf", "anyOf", "allOf", "$ref"];
        if is_object && !details.iter().any(|detail| object.contains_key(*detail)) {
            untyped.push(pointer.to_owned());
        }
    });
    assert_eq!(untyped, Vec::<String>::new());
}

#[tokio::test]
async fn openapi_problems_have_their_media_type() {
    let document = served_document().await;
    let mut wrong = Vec::new();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let is_error = status.starts_with('4') || status.starts_with('5');
            let Some(content) = response["content"].as_object().filter(|_| is_error) else { continue };
            let types: Vec<_> = content.keys().collect();
            if types != ["application/problem+json"] {
                wrong.push(format!("{name} {status}: {types:?}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn openapi_operation_ids_are_verb_and_noun() {
    let document = served_document().await;
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is not unique");
        assert!(id.contains('_'), "{name}: {id} is not like list_jobs");
        assert!(id.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}: {id} is not snake_case");
    }
}
