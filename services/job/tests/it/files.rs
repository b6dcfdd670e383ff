//! Input files of jobs.

use contracts::file::{FileDeleted, FileUploadAborted};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Platform, id_of, sorted_json};

#[tokio::test(flavor = "multi_thread")]
async fn replace_job_files_replaces_the_whole_set() {
    let platform = Platform::start().await;
    let (a, b, c) = (platform.complete_file().await, platform.complete_file().await, platform.complete_file().await);
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[b, a, b]).await;
    assert_eq!(platform.get_job(job).await["input_file_ids"], sorted_json(&[a, b]));

    let files = format!("jobs/{job}/files");
    let replace = |ids: &[Uuid]| platform.put(&files).json(&json!({ "file_ids": ids }));
    assert_eq!(replace(&[a, b]).send().await.expect(200).json()["version"], 2, "the same set");
    replace(&[a, c]).header("if-match", "\"1\"").send().await.problem(412);
    assert_eq!(replace(&[a, c]).header("if-match", "\"2\"").send().await.expect(200).json()["version"], 4);
    assert_eq!(platform.get_job(job).await["input_file_ids"], sorted_json(&[a, c]));
    replace(&[]).send().await.is(200);
    assert_eq!(platform.get_job(job).await["input_file_ids"], json!([]));
    replace(&[b]).send().await.is(200);
    platform.queue(job).await;
    assert_eq!(replace(&[a]).send().await.problem(409)["type"], "/problems/job-queued");
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["input_file_ids"], &shown["status"]), (&json!([b]), &json!("queued")));
    let events = [
        "JobCreated",
        "JobFilesLinked",
        "JobFilesUnlinked",
        "JobFilesLinked",
        "JobFilesUnlinked",
        "JobFilesLinked",
        "JobQueued",
    ];
    assert_eq!(platform.event_names(job).await, events);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_job_waits_for_a_file_to_complete() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let file = Uuid::now_v7();
    let upload = async {
        platform.publish_upload_started(platform.organization, file).await;
        // Lets the request start before the last event is published.
        tokio::task::yield_now().await;
        platform.publish_upload_completed(platform.organization, file).await;
    };
    let files = [file];
    let (job, ()) = tokio::join!(platform.create(configuration, &files), upload);
    assert_eq!(platform.get_job(job).await["input_file_ids"], json!([file]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_files_are_rejected_by_position() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    let stranger = platform.stranger.organization.unwrap();
    let (unknown, uploading, theirs, aborted, deleted) =
        (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), platform.complete_file().await);
    platform.publish_upload_started(platform.organization, uploading).await;
    platform.publish_upload_started(stranger, theirs).await;
    platform.publish_upload_completed(stranger, theirs).await;
    platform.publish_upload_started(platform.organization, aborted).await;
    let organization_id = platform.organization;
    let upload_aborted = FileUploadAborted { organization_id, bytes: 0 };
    platform.publish_file_event(organization_id, aborted, upload_aborted.into()).await;
    platform.publish_file_event(organization_id, deleted, FileDeleted { organization_id, bytes: 10 }.into()).await;
    let good = platform.complete_file().await;
    let before = platform.event_count().await;
    for unusable in [unknown, uploading, theirs, aborted, deleted] {
        let body = json!({ "job_configuration_id": configuration, "file_ids": [good, unusable] });
        let replace = json!({ "file_ids": [good, unusable] });
        let (created, replaced) = tokio::join!(
            platform.post("jobs").json(&body).send(),
            platform.put(&format!("jobs/{job}/files")).json(&replace).send(),
        );
        for answer in [created, replaced] {
            let problem = answer.problem(422);
            assert_eq!(problem["type"], "/problems/unusable-files");
            let errors = problem["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{problem}");
            assert_eq!(errors[0]["pointer"], "/file_ids/1");
            assert!(errors[0]["detail"].as_str().unwrap().contains(&unusable.to_string()), "{problem}");
        }
    }
    assert_eq!(platform.event_count().await, before, "no event appended");
    assert_eq!(platform.get_job(job).await["input_file_ids"], json!([]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_create_returns_first_job_after_file_deletion() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let file = platform.complete_file().await;
    let create = || {
        let body = json!({ "job_configuration_id": configuration, "file_ids": [file] });
        platform.post("jobs").header("idempotency-key", "k-1").json(&body)
    };
    let first = create().send().await.expect(201);
    let organization_id = platform.organization;
    platform.publish_file_event(organization_id, file, FileDeleted { organization_id, bytes: 10 }.into()).await;
    let other = json!({ "job_configuration_id": configuration, "file_ids": [file] });
    platform
        .service
        .eventually(async || (platform.post("jobs").json(&other).send().await.status == 422).then_some(()))
        .await;
    let before = platform.event_count().await;
    let repeated = create().send().await.expect(201);
    assert_eq!((id_of(&repeated), repeated.json()), (id_of(&first), first.json()));
    assert_eq!(platform.event_count().await, before);
    platform.close().await;
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct KnownFile {
    id: Uuid,
    name: String,
    bytes: i64,
    status: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_file_events_change_nothing() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let organization_id = platform.organization;
    let (completed, deleted) = (platform.complete_file().await, platform.complete_file().await);
    platform.publish_file_event(organization_id, deleted, FileDeleted { organization_id, bytes: 10 }.into()).await;
    platform.service.republish().await;
    // The bus delivers in order: once this file is known, the redelivered events have been handled.
    let last = platform.complete_file().await;
    platform.create(configuration, &[completed, last]).await;
    let query = "select id, name, bytes, status from known_files order by id";
    let rows: Vec<KnownFile> = sqlx::query_as(query).fetch_all(&platform.service.pool).await.unwrap();
    let row = |id: Uuid, status: &str| KnownFile { id, name: "a.csv".to_owned(), bytes: 10, status: status.to_owned() };
    assert_eq!(rows, [row(completed, "completed"), row(deleted, "deleted"), row(last, "completed")]);
    let dead_letters: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&platform.service.pool).await.unwrap();
    assert_eq!(dead_letters, 0);
    platform.close().await;
}
