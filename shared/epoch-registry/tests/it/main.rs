//! Tests of the registry clients. The tests of each bus include `framing_suite.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod confluent;

use epoch::avro::SchemaText;
use epoch_registry::{Framing, HttpRegistry, RegistryError, SchemaRegistry};
use std::sync::Arc;

use crate::confluent::{FIRST_ID, RegistryServer};

const SCHEMA_V1: &str =
    r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[{"name":"a","type":"long"}]}"#;
const SCHEMA_V2: &str = r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[
    {"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;

#[tokio::test]
async fn http_registry_separates_refusals_from_outages() {
    let mut registry = RegistryServer::started().await;
    let client = HttpRegistry::new(&[registry.url()]).unwrap();
    let id = client.register("t-test.file.Happened", SCHEMA_V1).await.unwrap();
    assert_eq!(usize::try_from(id).unwrap(), FIRST_ID);
    let schema = client.schema(id).await.unwrap();
    assert_eq!(SchemaText::parse(&schema).unwrap().id, SchemaText::parse(SCHEMA_V1).unwrap().id);

    registry.state().rejects_new_schemas = true;
    let refused = client.register("t-test.file.Happened", SCHEMA_V2).await.unwrap_err();
    assert!(
        matches!(&refused, RegistryError::Refused { subject, detail }
        if subject == "t-test.file.Happened" && detail.contains("incompatible")),
        "{refused}"
    );
    let invalid = client.register("t-test.file.Happened", "{").await.unwrap_err();
    assert!(matches!(invalid, RegistryError::Refused { .. }), "{invalid}");

    registry.stop().await;
    let unavailable = client.register("t-test.file.Happened", SCHEMA_V1).await.unwrap_err();
    assert!(matches!(unavailable, RegistryError::Unavailable { .. }), "{unavailable}");
    let unavailable = client.schema(id).await.unwrap_err();
    assert!(matches!(unavailable, RegistryError::Unavailable { .. }), "{unavailable}");
}

#[tokio::test]
async fn http_registry_reports_an_unknown_id() {
    let registry = RegistryServer::started().await;
    let client = HttpRegistry::new(&[registry.url()]).unwrap();
    assert_eq!(client.schema(7).await, Err(RegistryError::UnknownId { id: 7 }));
    assert_eq!(registry.state().lookups, 1);
}

#[test]
fn constructors_reject_invalid_settings() {
    let no_urls: [&str; 0] = [];
    assert!(matches!(HttpRegistry::new(&no_urls), Err(RegistryError::Settings { .. })));
    let nowhere = Arc::new(HttpRegistry::new(&["http://127.0.0.1:1"]).unwrap());
    assert!(matches!(Framing::new(nowhere, &["{}"]), Err(RegistryError::Invalid(_))));
}
