//! The event streams of a service, read by other services.

use std::sync::Arc;

use axum::Router;
use epoch::{
    CommandContext, Envelope, FastPath, Timestamp, Version,
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use epoch_postgres::{PgStore, testkit::TestDatabase};
use http_kit::{Caller, Role, server};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_host::streams::{StoredEvent, StreamPage, StreamsPage, routes};
use uuid::Uuid;

use crate::support::{assert_problem, jobs, request, secrets, send};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Written {
    text: String,
}

epoch::events! {
    enum NoteEvent {
        Written = [r#"{"type":"record","name":"Written","fields":[{"name":"text","type":"string"}]}"#],
    }
}

async fn write_events(store: &PgStore, aggregate: &'static str, id: Uuid, texts: &[String]) -> Vec<Arc<Envelope>> {
    let events = texts.iter().map(|text| NoteEvent::from(Written { text: text.clone() }));
    let append = Append {
        aggregate,
        aggregate_id: id,
        expected: Version::ZERO,
        previous: None,
        events: events.map(|event| NewEvent::encode(&event).unwrap()).collect(),
        context: CommandContext::at(Timestamp::from_millis(1_700_000_000_123)).for_tenant(Uuid::from_u128(9)),
    };
    let Ok(AppendOutcome::Committed { events, .. }) = store.append(append).await else { panic!("not appended") };
    events
}

async fn open_log() -> (TestDatabase, PgStore, Router) {
    // Sets telemetry up, for the traces in problems.
    drop(jobs());
    let database = TestDatabase::create().await;
    let (store, appender) = PgStore::new(database.epoch().await, FastPath::new());
    tokio::spawn(appender.run());
    let router = server::finish(routes("notes", vec!["note"], store.clone(), secrets()));
    (database, store, router)
}

async fn get<T: serde::de::DeserializeOwned>(router: &Router, path: &str) -> T {
    let request = request(&Caller::service("billing"), "GET", &format!("/internal/v1/notes/streams/{path}"), &[], "");
    let response = send(router.clone(), request).await;
    assert_eq!(response.status, 200, "{}", response.body);
    serde_json::from_value(response.body).unwrap()
}

#[tokio::test]
async fn stream_is_returned_byte_for_byte_in_pages() {
    let (database, store, router) = open_log().await;
    let id = Uuid::now_v7();
    let texts: Vec<String> = (0..5).map(|number| format!("n{number}")).collect();
    let stored = write_events(&store, "note", id, &texts).await;
    let (mut after, mut received) = (0, Vec::new());
    loop {
        let page: StreamPage = get(&router, &format!("note/{id}?after={after}&limit=2")).await;
        assert!(page.events.len() <= 2);
        received.extend(page.events);
        let Some(next) = page.next else { break };
        after = next;
    }
    let expected: Vec<_> = stored.iter().map(|event| StoredEvent::from(event.as_ref())).collect();
    assert_eq!(received, expected);
    for (stored, (returned, text)) in stored.iter().zip(received.into_iter().zip(texts)) {
        let event = returned.envelope("note", id).unwrap();
        assert_eq!(event.decode::<NoteEvent>().unwrap(), Written { text }.into());
        assert_eq!(Envelope { position: stored.position, ..event }, **stored);
    }
    let empty: StreamPage = get(&router, &format!("note/{}", Uuid::now_v7())).await;
    assert_eq!((empty.events.len(), empty.next), (0, None));
    database.drop().await;
}

#[tokio::test]
async fn page_is_bounded_in_bytes() {
    let (database, store, router) = open_log().await;
    let id = Uuid::now_v7();
    let texts: Vec<String> = (0..4).map(|_| "x".repeat(600_000)).collect();
    write_events(&store, "note", id, &texts).await;
    let page: StreamPage = get(&router, &format!("note/{id}")).await;
    assert_eq!((page.events.len(), page.next), (2, Some(2)));
    let rest: StreamPage = get(&router, &format!("note/{id}?after=2")).await;
    assert_eq!((rest.events.len(), rest.next), (2, None));
    database.drop().await;
}

#[tokio::test]
async fn streams_are_listed_by_id() {
    let (database, store, router) = open_log().await;
    let id = |number: u128| Uuid::from_u128(number);
    for number in [3, 1, 2] {
        write_events(&store, "note", id(number), &vec!["t".to_owned(); usize::try_from(number).unwrap()]).await;
    }
    write_events(&store, "other", id(4), &["t".to_owned()]).await;
    let page: StreamsPage = get(&router, "note?limit=2").await;
    let ends: Vec<_> = page.streams.iter().map(|end| (end.id, end.version)).collect();
    assert_eq!((ends, page.next), (vec![(id(1), 1), (id(2), 2)], Some(id(2))));
    let page: StreamsPage = get(&router, &format!("note?after={}", id(2))).await;
    assert_eq!((page.streams.len(), page.streams[0].id, page.next), (1, id(3), None));
    database.drop().await;
}

#[tokio::test]
async fn only_services_read_own_aggregates() {
    let (database, _, router) = open_log().await;
    let (service, operator) = (Caller::service("billing"), Caller::operator());
    let member = Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Owner);
    let of = format!("note/{}", Uuid::nil());
    let cases = [
        (&operator, of.as_str(), 403, "/problems/forbidden"),
        (&member, &of, 403, "/problems/forbidden"),
        (&member, "note", 403, "/problems/forbidden"),
        (&service, "job", 404, "/problems/not-an-aggregate"),
        (&service, "job/00000000-0000-0000-0000-000000000000", 404, "/problems/not-an-aggregate"),
        (&service, "note/mine", 400, "/problems/malformed-path"),
        (&service, "note?limit=0", 400, "/problems/bad-request"),
        (&service, "note?limit=1001", 400, "/problems/bad-request"),
        (&service, "note?after=mine", 400, "/problems/malformed-query"),
        (&service, "note?before=1", 400, "/problems/malformed-query"),
    ];
    for (caller, path, status, kind) in cases {
        let path = format!("/internal/v1/notes/streams/{path}");
        assert_problem(&send(router.clone(), request(caller, "GET", &path, &[], "")).await, status, kind);
    }
    database.drop().await;
}

#[test]
fn malformed_event_is_refused() {
    let good = json!({
        "version": 7, "event_id": Uuid::nil(), "name": "Written", "schema": "00000000000000ff", "payload": "AA==",
        "occurred_at": 1, "recorded_at": 2, "metadata": { "command_id": Uuid::nil(), "correlation_id": Uuid::nil() },
    });
    let read = |field: &str, value: &str| {
        let mut event = good.clone();
        event[field] = value.into();
        serde_json::from_value::<StoredEvent>(event).unwrap().envelope("note", Uuid::nil())
    };
    assert!(read("name", "Written").is_ok());
    for (field, value) in [("schema", "xyz"), ("schema", "00000000000000ff0"), ("payload", "?")] {
        let refused = read(field, value).unwrap_err().to_string();
        assert!(refused.starts_with("version 7"), "{refused}");
    }
}
