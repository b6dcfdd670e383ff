//! The clients of registries. What buses make of them is in `framed.rs`, which their own tests include.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers as well")]

mod confluent;

use epoch::avro::SchemaText;
use epoch_registry::{Framing, HttpRegistry, RegistryError, SchemaRegistry};
use std::sync::Arc;

use crate::confluent::{FIRST_ID, Registry};

const ONE: &str =
    r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[{"name":"a","type":"long"}]}"#;
const TWO: &str = r#"{"type":"record","name":"Happened","namespace":"test.file","fields":[
    {"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;

#[tokio::test]
async fn refusals_and_silence_are_told_apart() {
    let mut registry = Registry::started().await;
    let client = HttpRegistry::new(&[registry.url()]).unwrap();
    let number = client.register("t-test.file.Happened", ONE).await.unwrap();
    assert_eq!(usize::try_from(number).unwrap(), FIRST_ID);
    let schema = client.schema(number).await.unwrap();
    assert_eq!(SchemaText::parse(&schema).unwrap().id, SchemaText::parse(ONE).unwrap().id);

    registry.kept().refuses = true;
    let refused = client.register("t-test.file.Happened", TWO).await.unwrap_err();
    assert!(
        matches!(&refused, RegistryError::Refused { subject, detail }
        if subject == "t-test.file.Happened" && detail.contains("incompatible")),
        "{refused}"
    );
    let invalid = client.register("t-test.file.Happened", "{").await.unwrap_err();
    assert!(matches!(invalid, RegistryError::Refused { .. }), "{invalid}");

    registry.stop().await;
    let silent = client.register("t-test.file.Happened", ONE).await.unwrap_err();
    assert!(matches!(silent, RegistryError::Unavailable { .. }), "{silent}");
    let silent = client.schema(number).await.unwrap_err();
    assert!(matches!(silent, RegistryError::Unavailable { .. }), "{silent}");
}

#[tokio::test]
async fn what_the_registry_does_not_know_is_an_answer() {
    let registry = Registry::started().await;
    let client = HttpRegistry::new(&[registry.url()]).unwrap();
    assert_eq!(client.schema(7).await, Err(RegistryError::UnknownId { id: 7 }));
    assert_eq!(registry.kept().questions, 1);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let no_urls: [&str; 0] = [];
    assert!(matches!(HttpRegistry::new(&no_urls), Err(RegistryError::Settings { .. })));
    let nowhere = Arc::new(HttpRegistry::new(&["http://127.0.0.1:1"]).unwrap());
    assert!(matches!(Framing::new(nowhere, &["{}"]), Err(RegistryError::Invalid(_))));
}
