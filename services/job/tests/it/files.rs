//! Which files a job can have.

use contracts::file::{FileDeleted, FileUploadAborted};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Platform, id_of, sorted};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_created_with_files_and_their_set_is_replaced() {
    let platform = Platform::start().await;
    let (a, b, c) = (platform.file().await, platform.file().await, platform.file().await);
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[b, a, b]).await;
    assert_eq!(platform.job(job).await["input_file_ids"], sorted(&[a, b]));

    let files = format!("jobs/{job}/files");
    let replace = |ids: &[Uuid]| platform.put(&files).json(&json!({ "file_ids": ids }));
    assert_eq!(replace(&[a, b]).send().await.expect(200).json()["version"], 2, "the same set");
    replace(&[a, c]).header("if-match", "\"1\"").send().await.problem(412);
    assert_eq!(replace(&[a, c]).header("if-match", "\"2\"").send().await.expect(200).json()["version"], 4);
    assert_eq!(platform.job(job).await["input_file_ids"], sorted(&[a, c]));
    replace(&[]).send().await.is(200);
    assert_eq!(platform.job(job).await["input_file_ids"], json!([]));
    replace(&[b]).send().await.is(200);
    platform.queue(job).await;
    assert_eq!(replace(&[a]).send().await.problem(409)["type"], "/problems/job-queued");
    let shown = platform.job(job).await;
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
    assert_eq!(platform.events(job).await, events);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_about_to_be_complete_is_waited_for() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let file = Uuid::now_v7();
    let upload = async {
        platform.upload_started(platform.organization, file).await;
        // The request is on its way when the last event comes.
        tokio::task::yield_now().await;
        platform.upload_completed(platform.organization, file).await;
    };
    let files = [file];
    let (job, ()) = tokio::join!(platform.create(configuration, &files), upload);
    assert_eq!(platform.job(job).await["input_file_ids"], json!([file]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_can_not_be_used_are_named() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    let stranger = platform.stranger.organization.unwrap();
    let (unknown, uploading, theirs, aborted, deleted) =
        (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), platform.file().await);
    platform.upload_started(platform.organization, uploading).await;
    platform.upload_started(stranger, theirs).await;
    platform.upload_completed(stranger, theirs).await;
    platform.upload_started(platform.organization, aborted).await;
    let organization_id = platform.organization;
    let given_up = FileUploadAborted { organization_id, bytes: 0 };
    platform.file_event(organization_id, aborted, given_up.into()).await;
    platform.file_event(organization_id, deleted, FileDeleted { organization_id, bytes: 10 }.into()).await;
    let good = platform.file().await;
    let before = platform.appended().await;
    for bad in [unknown, uploading, theirs, aborted, deleted] {
        let body = json!({ "job_configuration_id": configuration, "file_ids": [good, bad] });
        let replace = json!({ "file_ids": [good, bad] });
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
            assert!(errors[0]["detail"].as_str().unwrap().contains(&bad.to_string()), "{problem}");
        }
    }
    assert_eq!(platform.appended().await, before, "nothing appended");
    assert_eq!(platform.job(job).await["input_file_ids"], json!([]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_comes_again_gives_the_first_job_though_its_file_is_gone() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let file = platform.file().await;
    let create = || {
        let body = json!({ "job_configuration_id": configuration, "file_ids": [file] });
        platform.post("jobs").header("idempotency-key", "k-1").json(&body)
    };
    let first = create().send().await.expect(201);
    let organization_id = platform.organization;
    platform.file_event(organization_id, file, FileDeleted { organization_id, bytes: 10 }.into()).await;
    let other = json!({ "job_configuration_id": configuration, "file_ids": [file] });
    platform
        .service
        .eventually(async || (platform.post("jobs").json(&other).send().await.status == 422).then_some(()))
        .await;
    let before = platform.appended().await;
    let again = create().send().await.expect(201);
    assert_eq!((id_of(&again), again.json()), (id_of(&first), first.json()));
    assert_eq!(platform.appended().await, before);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_delivers_twice_changes_nothing() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let organization_id = platform.organization;
    let (kept, deleted) = (platform.file().await, platform.file().await);
    platform.file_event(organization_id, deleted, FileDeleted { organization_id, bytes: 10 }.into()).await;
    platform.service.republish().await;
    // What comes behind them on the bus has been seen, so they have been too.
    let last = platform.file().await;
    platform.create(configuration, &[kept, last]).await;
    let query = "select id, name, bytes, status from known_files order by id";
    let rows: Vec<(Uuid, String, i64, String)> = sqlx::query_as(query).fetch_all(&platform.service.pool).await.unwrap();
    let row = |id: Uuid, status: &str| (id, "a.csv".to_owned(), 10, status.to_owned());
    assert_eq!(rows, [row(kept, "completed"), row(deleted, "deleted"), row(last, "completed")]);
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&platform.service.pool).await.unwrap();
    assert_eq!(waiting, 0);
    platform.close().await;
}
