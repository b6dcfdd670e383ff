//! The read model `files` and its routes.

use axum::http::Method;
use epoch::{Position, gate::DeliverySource, handler::Subscription, store::Streamer};
use epoch_postgres::{PgStore, PgSubscription, Progress};
use futures::TryStreamExt;
use http_kit::{Caller, Role};
use serde_json::Value;
use sqlx::Row;
use std::sync::Arc;
use uuid::Uuid;

use crate::support::Uploads;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_response_follows_upload() {
    let uploads = Uploads::start().await;
    let created = uploads.creation("a.csv", 10).send_unchanged().await.expect(201);
    let upload = crate::support::id(&created);
    let path = |version: u64| format!("files/{upload}?min_version={version}");
    let file = uploads.get(&path(1)).send().await.expect(200);
    assert_eq!(file.header("etag"), "\"1\"");
    let file_json = file.json();
    assert_eq!(
        (&file_json["status"], &file_json["bytes"], &file_json["version"]),
        (&"uploading".into(), &0.into(), &1.into())
    );
    assert_eq!((&file_json["name"], &file_json["content_type"]), (&"a.csv".into(), &"text/csv".into()));
    assert_eq!(file_json["completed_at"], Value::Null);
    let patched = uploads.patch(upload, 0, vec![1; 4]).send().await.expect(204);
    assert_eq!(patched.header("etag"), "\"2\"");
    assert_eq!(uploads.get(&path(2)).send().await.expect(200).json()["bytes"], 4);
    uploads.patch(upload, 4, vec![1; 6]).send().await.is(204);
    let file_json = uploads.get(&path(4)).send().await.expect(200).json();
    assert_eq!((&file_json["status"], &file_json["bytes"]), (&"completed".into(), &10.into()));
    assert!(file_json["completed_at"].as_str().unwrap() >= file_json["created_at"].as_str().unwrap());
    let late = uploads.get(&path(5)).send().await;
    assert_eq!(late.problem(503)["type"], "/problems/version-not-reached");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_filters_by_status_and_organization() {
    let uploads = Uploads::start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(uploads.upload(&format!("{number}"), b"x").await);
    }
    let open = uploads.create("open", 1).await;
    let others = Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Member);
    uploads.get(&format!("files/{open}?min_version=1")).send().await.is(200);
    uploads.get(&format!("files/{}?min_version=3", ids[4])).send().await.is(200);
    let mut listed_ids = Vec::new();
    let mut next = String::new();
    loop {
        let page = uploads.get(&format!("files?limit=2{next}")).send().await.expect(200).json();
        listed_ids.extend(page["items"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    let newest_first: Vec<_> = ids.iter().rev().map(Uuid::to_string).collect();
    assert_eq!(listed_ids, newest_first);
    let uploading = uploads.get("files?status=uploading").send().await.expect(200).json();
    assert_eq!(uploading["items"].as_array().unwrap().len(), 1);
    assert_eq!(uploading["items"][0]["id"], open.to_string());
    let foreign_list = format!("/api/v1/organizations/{}/files", others.organization.unwrap());
    let list = uploads.service.get(foreign_list).by(&others).send().await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 0);
    uploads.get("files?status=lost").send().await.problem(400);
    uploads.get("files?limit=0").send().await.problem(400);
    uploads.get("files?cursor=x").send().await.problem(400);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_equal_folded_streams_after_redelivery() {
    let uploads = Uploads::start().await;
    let mut files = Vec::new();
    for number in 0..6 {
        let upload = uploads.create(&format!("{number}"), 10).await;
        uploads.patch(upload, 0, vec![1; 4]).send().await.is(204);
        match number % 3 {
            0 => drop(uploads.patch(upload, 4, vec![1; 6]).send().await.expect(204)),
            1 => drop(uploads.tus(Method::DELETE, &format!("uploads/{upload}")).send().await.expect(204)),
            _ => {}
        }
        files.push(upload);
    }
    let rows = || async {
        sqlx::query("select id, bytes, status, version from files order by id")
            .fetch_all(&uploads.service.pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get::<Uuid, _>(0), row.get::<i64, _>(1), row.get::<String, _>(2), row.get::<i64, _>(3)))
            .collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let (bytes, status, version) = [(10, "completed", 4), (0, "aborted", 3), (4, "uploading", 2)][number % 3];
        expected.push((*file, bytes, status.to_owned(), version));
    }
    uploads.service.eventually(|| async { (rows().await == expected).then_some(()) }).await;

    // The bus redelivers all events to the subscriptions of another process.
    let (store, _) = PgStore::new(uploads.service.pool.clone(), epoch::FastPath::new());
    let all: Vec<_> = store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    let progress = Progress::new(uploads.service.pool.clone());
    for handler in handlers(&uploads) {
        let gate = PgSubscription::new(handler, store.clone(), progress.clone());
        for _ in 0..2 {
            gate.deliver(&all, DeliverySource::Bus).await.unwrap();
        }
    }
    assert_eq!(rows().await, expected);

    // A rebuild from all events in one batch has the same rows.
    sqlx::raw_sql("truncate files; delete from cursors where subscription = 'files'")
        .execute(&uploads.service.pool)
        .await
        .unwrap();
    for handler in handlers(&uploads) {
        PgSubscription::new(handler, store.clone(), progress.clone()).deliver(&all, DeliverySource::Bus).await.unwrap();
    }
    assert_eq!(rows().await, expected);
    uploads.close().await;
}

/// Returns the service's handlers as in another process.
fn handlers(uploads: &Uploads) -> Vec<Arc<dyn epoch_postgres::PgHandler>> {
    let (store, _) = PgStore::new(uploads.service.pool.clone(), epoch::FastPath::new());
    let host = service_host::service::ServiceContext {
        store,
        progress: Progress::new(uploads.service.pool.clone()),
        secrets: uploads.service.shared.secrets.clone(),
        peers: uploads.service.shared.peers.clone(),
        stop: tokio_util::sync::CancellationToken::new(),
    };
    let parts = file::storage::PartStore::in_directory(&uploads.directory).unwrap();
    file::assemble(&host, &parts).handlers
}
