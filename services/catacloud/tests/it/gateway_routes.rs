//! The gateway routes each public operation of each service to that service.
//!
//! The gateway has its own route table, because it must not depend on the services' crates. A path that is missing in
//! the table would be a 404 in production, so this test compares the table with the services' OpenAPI documents.

use reqwest::Method;
use utoipa::openapi::OpenApi;

use crate::public_api::{PublicApi, documents};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Returns the method and path of each public operation, with an id in place of each path parameter.
fn operations(document: &OpenApi) -> Vec<(Method, String)> {
    let document = serde_json::to_value(document).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let segments: Vec<&str> =
            path.split('/').map(|segment| if segment.starts_with('{') { ID } else { segment }).collect();
        for method in item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str())) {
            operations.push((method.to_uppercase().parse().unwrap(), segments.join("/")));
        }
    }
    operations
}

#[tokio::test]
async fn gateway_routes_every_public_operation() {
    let api = PublicApi::start().await;
    let mut misrouted = Vec::new();
    for (service, document) in documents() {
        let operations = operations(&document);
        assert!(!operations.is_empty(), "{service} has no public operation");
        for (method, path) in operations {
            let response = api.request(method.clone(), &path).send().await.unwrap();
            let target = response.headers().get("x-service").map(|name| name.to_str().unwrap().to_owned());
            if target.as_deref() != Some(service) {
                misrouted.push(format!("{service}: {method} {path} leads to {target:?}"));
            }
        }
    }
    assert_eq!(misrouted, Vec::<String>::new());
    api.stop().await;
}
