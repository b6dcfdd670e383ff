//! The OpenAPI document and the API documentation.

use serde_json::{Value, json};

use crate::support::{DEPLOYMENTS, Deployment, TestServices};

fn document_with(path: &str, schema: Value) -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "a service", "version": "0" },
        "paths": {
            path: { "get": { "operationId": "list", "responses": { "200": { "description": "", "content": content } } } },
            "/internal/v1/secret": { "get": { "responses": { "200": { "description": "" } } } },
        },
        "components": { "schemas": { "Thing": schema } },
    })
}

fn services(deployment: Deployment) -> TestServices {
    let mut services = TestServices::new(deployment);
    let text = || json!({ "type": "string" });
    services.documents.insert("organization", document_with("/api/v1/organizations", text()));
    services.documents.insert("job", document_with("/api/v1/organizations/{org}/jobs", text()));
    services.documents.insert("file", document_with("/api/v1/organizations/{org}/files", json!({ "type": "integer" })));
    services.documents.insert("billing", document_with("/api/v1/organizations/{org}/usage", text()));
    services
}

#[tokio::test]
async fn document_merges_all_services() {
    for deployment in DEPLOYMENTS {
        let gateway = services(deployment).start().await;
        let answer = gateway.get("/api/v1/openapi.json").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        paths.sort();
        let expected = [
            "/api/v1/organizations",
            "/api/v1/organizations/{org}/files",
            "/api/v1/organizations/{org}/jobs",
            "/api/v1/organizations/{org}/usage",
        ];
        assert_eq!(paths, expected, "{deployment:?}");
        assert_eq!(document["components"]["schemas"]["Thing"]["type"], "string");
        assert_eq!(document["components"]["schemas"]["file.Thing"]["type"], "integer");
        assert_eq!(
            document["components"]["securitySchemes"]["api_key"],
            json!({
                "type": "http",
                "scheme": "bearer",
                "description": "An organization's API key (cat_…), or the operator's key.",
            })
        );
        assert_eq!(document["security"], json!([{ "api_key": [] }]));
        assert!(!document["info"]["description"].as_str().unwrap().contains("not described"));
        serde_json::from_value::<utoipa::openapi::OpenApi>(document).unwrap();
    }
}

#[tokio::test]
async fn document_names_missing_services() {
    let mut services = services(Deployment::Separate);
    services.down.push("file");
    services.documents.remove("billing");
    let gateway = services.start().await;
    let document: Value = gateway.get("/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    let description = document["info"]["description"].as_str().unwrap();
    assert!(description.contains("file, billing"), "{description}");
    assert_eq!(document["paths"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn documentation_loads_only_local_files() {
    let gateway = services(Deployment::Colocated).start().await;
    let redirect = gateway.get("/api/docs").send().await.unwrap();
    assert_eq!((redirect.status().as_u16(), &redirect.headers()["location"]), (303, &"/api/docs/".parse().unwrap()));
    let page = gateway.get("/api/docs/").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains("unsafe-eval"), "{policy}");
    let html = page.text().await.unwrap();
    assert!(!html.contains("<style") && !html.contains("<script>"), "the policy forbids inline code: {html}");
    let mut resources = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        resources.extend(html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()));
    }
    assert!(resources.len() >= 5, "{resources:?}");
    for resource in resources {
        let relative = resource.strip_prefix("./").unwrap_or(resource);
        assert!(!relative.contains("//"), "{resource} is external");
        let answer = gateway.get(&format!("/api/docs/{relative}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{resource}");
        let text = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        assert!(!text.contains("url(http") && !text.contains("@import"), "{resource} loads an external resource");
        if relative == "swagger-initializer.js" {
            assert!(text.contains("\"/api/v1/openapi.json\"") && !text.contains("http"), "{text}");
            assert!(text.contains("\"validatorUrl\": \"none\""), "{text}");
        }
    }
}
