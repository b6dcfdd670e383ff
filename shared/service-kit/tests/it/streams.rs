//! A service's log, as other services get it.

use axum::Router;
use epoch::{
    CommandContext, Envelope, FastPath, Timestamp, Version,
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use epoch_postgres::{PgStore, testkit::TestDatabase};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::{
    Caller, Role, server,
    streams::{StoredEvent, StreamPage, StreamsPage, routes},
};
use std::sync::Arc;
use uuid::Uuid;

use crate::support::{answer, assert_problem, jobs, request, secrets};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Written {
    text: String,
}

epoch::events! {
    enum NoteEvent {
        Written = [r#"{"type":"record","name":"Written","fields":[{"name":"text","type":"string"}]}"#],
    }
}

async fn written(store: &PgStore, aggregate: &'static str, id: Uuid, texts: &[String]) -> Vec<Arc<Envelope>> {
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

async fn log() -> (TestDatabase, PgStore, Router) {
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
    let answer = answer(router.clone(), request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_value(answer.body).unwrap()
}

#[tokio::test]
async fn hands_out_a_stream_byte_for_byte_in_pages() {
    let (database, store, router) = log().await;
    let id = Uuid::now_v7();
    let texts: Vec<String> = (0..5).map(|number| format!("n{number}")).collect();
    let stored = written(&store, "note", id, &texts).await;
    let (mut after, mut got) = (0, Vec::new());
    loop {
        let page: StreamPage = get(&router, &format!("note/{id}?after={after}&limit=2")).await;
        assert!(page.events.len() <= 2);
        got.extend(page.events);
        let Some(next) = page.next else { break };
        after = next;
    }
    let expected: Vec<_> = stored.iter().map(|event| StoredEvent::from(event.as_ref())).collect();
    assert_eq!(got, expected);
    for (stored, (handed_out, text)) in stored.iter().zip(got.into_iter().zip(texts)) {
        let event = handed_out.envelope("note", id).unwrap();
        assert_eq!(event.decode::<NoteEvent>().unwrap(), Written { text }.into());
        assert_eq!(Envelope { position: stored.position, ..event }, **stored);
    }
    let nothing: StreamPage = get(&router, &format!("note/{}", Uuid::now_v7())).await;
    assert_eq!((nothing.events.len(), nothing.next), (0, None));
    database.drop().await;
}

#[tokio::test]
async fn a_page_ends_with_its_budget_of_bytes() {
    let (database, store, router) = log().await;
    let id = Uuid::now_v7();
    let texts: Vec<String> = (0..4).map(|_| "x".repeat(600_000)).collect();
    written(&store, "note", id, &texts).await;
    let page: StreamPage = get(&router, &format!("note/{id}")).await;
    assert_eq!((page.events.len(), page.next), (2, Some(2)));
    let rest: StreamPage = get(&router, &format!("note/{id}?after=2")).await;
    assert_eq!((rest.events.len(), rest.next), (2, None));
    database.drop().await;
}

#[tokio::test]
async fn lists_streams_by_id() {
    let (database, store, router) = log().await;
    let id = |number: u128| Uuid::from_u128(number);
    for number in [3, 1, 2] {
        written(&store, "note", id(number), &vec!["t".to_owned(); usize::try_from(number).unwrap()]).await;
    }
    written(&store, "other", id(4), &["t".to_owned()]).await;
    let page: StreamsPage = get(&router, "note?limit=2").await;
    let ends: Vec<_> = page.streams.iter().map(|end| (end.id, end.version)).collect();
    assert_eq!((ends, page.next), (vec![(id(1), 1), (id(2), 2)], Some(id(2))));
    let page: StreamsPage = get(&router, &format!("note?after={}", id(2))).await;
    assert_eq!((page.streams.len(), page.streams[0].id, page.next), (1, id(3), None));
    database.drop().await;
}

#[tokio::test]
async fn is_for_services_and_for_what_the_service_owns() {
    let (database, _, router) = log().await;
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
        assert_problem(&answer(router.clone(), request(caller, "GET", &path, &[], "")).await, status, kind);
    }
    database.drop().await;
}

#[test]
fn what_no_owner_hands_out_is_refused() {
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
