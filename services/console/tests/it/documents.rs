//! The API's documentation.

use serde_json::{Value, json};

use crate::support::{BOTH, Services, Way};

fn described(path: &str, schema: Value) -> Value {
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

fn services(way: Way) -> Services {
    let mut services = Services::new(way);
    let text = || json!({ "type": "string" });
    services.documents.insert("organization", described("/api/v1/organizations", text()));
    services.documents.insert("job", described("/api/v1/organizations/{org}/jobs", text()));
    services.documents.insert("file", described("/api/v1/organizations/{org}/files", json!({ "type": "integer" })));
    services.documents.insert("billing", described("/api/v1/organizations/{org}/usage", text()));
    services
}

#[tokio::test]
async fn the_document_holds_what_every_service_has() {
    for way in BOTH {
        let world = services(way).door().await;
        let answer = world.get("/api/v1/openapi.json").send().await.unwrap();
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
        assert_eq!(paths, expected, "{way:?}");
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
        assert!(!document["info"]["description"].as_str().unwrap().contains("Not described"));
        serde_json::from_value::<utoipa::openapi::OpenApi>(document).unwrap();
    }
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let mut services = services(Way::Http);
    services.down.push("file");
    services.documents.remove("billing");
    let world = services.door().await;
    let document: Value = world.get("/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    let description = document["info"]["description"].as_str().unwrap();
    assert!(description.contains("file, billing"), "{description}");
    assert_eq!(document["paths"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn the_page_for_people_loads_from_here_alone() {
    let world = services(Way::Local).door().await;
    let moved = world.get("/api/docs").send().await.unwrap();
    assert_eq!((moved.status().as_u16(), &moved.headers()["location"]), (303, &"/api/docs/".parse().unwrap()));
    let page = world.get("/api/docs/").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains("unsafe-eval"), "{policy}");
    let html = page.text().await.unwrap();
    assert!(!html.contains("<style") && !html.contains("<script>"), "the policy lets nothing inline run: {html}");
    let mut parts = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        parts.extend(html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()));
    }
    assert!(parts.len() >= 5, "{parts:?}");
    for part in parts {
        let relative = part.strip_prefix("./").unwrap_or(part);
        assert!(!relative.contains("//"), "{part} is elsewhere");
        let answer = world.get(&format!("/api/docs/{relative}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{part}");
        let text = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        assert!(!text.contains("url(http") && !text.contains("@import"), "{part} loads from elsewhere");
        if relative == "swagger-initializer.js" {
            assert!(text.contains("\"/api/v1/openapi.json\"") && !text.contains("http"), "{text}");
            assert!(text.contains("\"validatorUrl\": \"none\""), "{text}");
        }
    }
}
