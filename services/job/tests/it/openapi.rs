//! The OpenAPI document of the public routes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Platform;

async fn document(platform: &Platform) -> Value {
    platform.service.get("/internal/v1/job/openapi.json").by(&platform.runner).send().await.expect(200).json()
}

/// Returns all `$ref` values below `value`.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_references_resolve() {
    let platform = Platform::start().await;
    let document = document(&platform).await;
    for reference in references(&document) {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "dangling reference {reference}");
    }
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_operations_are_described_and_typed() {
    let platform = Platform::start().await;
    let document = document(&platform).await;
    let mut operation_ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(operation_ids.insert(id), "{id} is not unique");
            assert!(operation["summary"].is_string(), "{id} has no summary");
            for parameter in operation["parameters"].as_array().unwrap() {
                assert!(parameter["description"].is_string(), "{id}: {parameter}");
            }
            let responses = operation["responses"].as_object().unwrap();
            for status in ["401", "404", "429"] {
                assert!(responses.contains_key(status), "{method} {path} lacks {status}");
            }
            for (status, response) in responses {
                let content = response["content"].as_object().unwrap();
                let media_types: Vec<_> = content.keys().map(String::as_str).collect();
                if status.starts_with('2') {
                    assert_eq!(media_types, ["application/json"], "{id} {status}");
                    assert!(content["application/json"]["schema"]["$ref"].is_string(), "{id} {status} is not typed");
                } else {
                    assert_eq!(media_types, ["application/problem+json"], "{id} {status}");
                    let schema = &content["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{id} {status}");
                }
                let headers = response.get("headers");
                if matches!(status.as_str(), "429" | "503") {
                    assert!(headers.is_some_and(|headers| headers["Retry-After"].is_object()), "{id} {status}");
                }
            }
        }
    }
    let expected = [
        "cancel_job",
        "create_job",
        "define_job_configuration",
        "get_job",
        "get_job_configuration",
        "list_job_configurations",
        "list_job_outputs",
        "list_jobs",
        "queue_job",
        "replace_job_files",
        "retire_job_configuration",
        "revise_job_configuration",
    ];
    assert!(operation_ids.into_iter().eq(expected), "operation ids are part of the contract");
    platform.close().await;
}
