//! Uploads over tus: the protocol and the stored bytes.

use axum::http::Method;
use futures::future::join_all;
use sha2::{Digest, Sha256};
use sqlx::Row;
use uuid::Uuid;

use crate::support::{MIB, PART_BYTES, Uploads, chunked, content, id, interrupted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_returns_capabilities_without_key() {
    let uploads = Uploads::start().await;
    let capabilities = uploads.service.request(Method::OPTIONS, uploads.path("uploads")).send().await.expect(204);
    assert_eq!(capabilities.header("tus-version"), "1.0.0");
    assert_eq!(capabilities.header("tus-resumable"), "1.0.0");
    assert_eq!(capabilities.header("tus-extension"), "creation,creation-with-upload,termination");
    assert_eq!(capabilities.header("tus-max-size"), "5497558138880");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_file_survives_upload_in_several_requests() {
    let uploads = Uploads::start().await;
    let bytes = content(24 * MIB + 5);
    let created = uploads.creation("large.csv", bytes.len()).send_unchanged().await.expect(201);
    assert_eq!(created.header("tus-resumable"), "1.0.0");
    let upload = id(&created);
    assert_eq!(created.header("location"), uploads.path(&format!("uploads/{upload}")));
    // Bodies smaller than a part, larger than one part, larger than two parts, and the rest.
    let mut offset = 0;
    for piece in [MIB, 7 * MIB + 3, 13 * MIB, 3 * MIB + 2] {
        let answer = uploads.patch(upload, offset, chunked(&bytes[offset..offset + piece], 70_001)).send().await;
        let answer = answer.expect(204);
        offset += piece;
        assert_eq!(answer.header("upload-offset"), offset.to_string());
        assert_eq!(answer.header("tus-resumable"), "1.0.0");
    }
    let head = uploads.tus(Method::HEAD, &format!("uploads/{upload}")).send().await.expect(200);
    assert_eq!(head.header("upload-offset"), bytes.len().to_string());
    assert_eq!(head.header("upload-length"), bytes.len().to_string());
    assert_eq!(head.header("cache-control"), "no-store");
    assert!(head.header("upload-metadata").starts_with("filename bGFyZ2UuY3N2,filetype "));

    let read = uploads.content(upload).await.expect(200);
    assert!(read.bytes == bytes, "the content differs");
    let state = uploads.state(upload).await;
    let sizes: Vec<u64> = state.parts.iter().map(|part| part.bytes).collect();
    let (part, mib) = (PART_BYTES, MIB as u64);
    assert_eq!(sizes, [mib, part, mib + 3, part, part, mib, 3 * mib + 2]);
    assert_eq!(uploads.objects(upload).len(), sizes.len());
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_event_has_hash_of_its_bytes() {
    let uploads = Uploads::start().await;
    let bytes = content(PART_BYTES as usize + 10);
    let upload = uploads.upload("a", &bytes).await;
    let (first, second) = bytes.split_at(PART_BYTES as usize);
    let rows = sqlx::query(
        "select payload from events where aggregate_id = $1 and event_name = 'FilePartUploaded' order by version",
    )
    .bind(upload)
    .fetch_all(&uploads.service.pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), 2);
    for (row, part) in rows.iter().zip([first, second]) {
        let payload: Vec<u8> = row.get(0);
        let hash = hex::encode(Sha256::digest(part));
        assert!(payload.windows(64).any(|window| window == hash.as_bytes()));
    }
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_upload_resumes_at_its_offset() {
    let uploads = Uploads::start().await;
    let bytes = content(16 * MIB);
    let upload = uploads.create("a", bytes.len()).await;
    let received = 8 * MIB + 321;
    let answer = uploads.patch(upload, 0, interrupted(&bytes[..received])).send().await;
    assert_eq!(answer.problem(400)["status"], 400);
    assert_eq!(uploads.offset(upload).await, received);
    assert_eq!(uploads.content(upload).await.problem(404)["status"], 404);
    let again = uploads.patch(upload, received, interrupted(&[])).send().await;
    again.problem(400);
    assert_eq!(uploads.offset(upload).await, received, "an empty body records nothing");
    uploads.patch(upload, received, bytes[received..].to_vec()).send().await.is(204);
    assert!(uploads.content(upload).await.expect(200).bytes == bytes, "the content differs");
    assert!(uploads.objects(upload).iter().all(|path| !path.to_string_lossy().contains('#')));
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interruption_after_last_byte_completes_upload() {
    let uploads = Uploads::start().await;
    let bytes = content(1000);
    let upload = uploads.create("a", bytes.len()).await;
    uploads.patch(upload, 0, interrupted(&bytes)).send().await.problem(400);
    assert_eq!(uploads.content(upload).await.expect(200).bytes, bytes);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_offset_changes_nothing() {
    let uploads = Uploads::start().await;
    let bytes = content(100);
    let upload = uploads.create("a", 200).await;
    uploads.patch(upload, 0, bytes.clone()).send().await.is(204);
    let events = uploads.events().await;
    for offset in [0, 99, 101, 200] {
        let problem = uploads.patch(upload, offset, bytes.clone()).send().await.problem(409);
        assert_eq!(problem["type"], "/problems/upload-offset");
    }
    let huge = uploads.patch(upload, 0, bytes.clone()).header("upload-offset", "99999999999999999999999");
    huge.send().await.problem(409);
    assert_eq!((uploads.offset(upload).await, uploads.events().await), (100, events));
    assert_eq!(uploads.objects(upload).len(), 1);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_bodies_record_one_winner() {
    let uploads = Uploads::start().await;
    for _ in 0..10 {
        let upload = uploads.create("a", 1000).await;
        // The bodies wait for each other in the middle, so all are accepted before one is recorded.
        let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(4));
        let bodies = (0..4_u8).map(|writer| {
            let barrier = barrier.clone();
            let chunks = synchronized_chunks(writer, barrier);
            uploads.patch(upload, 0, axum::body::Body::from_stream(chunks)).send()
        });
        let answers = join_all(bodies).await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        let winner = statuses.iter().position(|status| *status == 204).unwrap();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409, 409, 409]);
        assert_eq!(uploads.offset(upload).await, 400);
        assert_eq!(uploads.history(upload).await, ["FileUploadStarted", "FilePartUploaded"]);
        assert_eq!(uploads.objects(upload).len(), 1, "the rejected parts are deleted");
        uploads.patch(upload, 400, vec![9; 600]).send().await.is(204);
        let read = uploads.content(upload).await.expect(200).bytes;
        assert!(read[..400].iter().all(|byte| usize::from(*byte) == winner) && read[400..] == [9; 600]);
    }
    uploads.close().await;
}

/// Returns a body of 400 bytes that waits for all other writers in the middle.
fn synchronized_chunks(
    writer: u8,
    barrier: std::sync::Arc<tokio::sync::Barrier>,
) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send + 'static {
    futures::stream::unfold(0, move |chunk| {
        let barrier = barrier.clone();
        async move {
            if chunk == 1 {
                barrier.wait().await;
            }
            (chunk < 2).then(|| (Ok(vec![writer; 200]), chunk + 1))
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_beyond_declared_size_is_rejected() {
    let uploads = Uploads::start().await;
    let upload = uploads.create("a", 100).await;
    uploads.patch(upload, 0, vec![1; 60]).send().await.is(204);
    let events = uploads.events().await;
    let too_long = uploads.patch(upload, 60, vec![2; 41]).header("content-length", "41");
    too_long.send().await.problem(413);
    // Without Content-Length the excess is found in the middle of the body, or directly after its last valid byte.
    uploads.patch(upload, 60, chunked(&[2; 60], 25)).send().await.problem(413);
    uploads.patch(upload, 60, chunked(&[2; 41], 40)).send().await.problem(413);
    assert_eq!((uploads.offset(upload).await, uploads.events().await), (60, events));
    assert_eq!(uploads.objects(upload).len(), 1, "the rejected bytes are deleted");
    uploads.patch(upload, 60, vec![2; 40]).send().await.is(204);
    uploads.patch(upload, 100, vec![3; 1]).send().await.problem(413);
    uploads.patch(upload, 100, Vec::new()).send().await.is(204);
    assert_eq!(uploads.content(upload).await.expect(200).bytes, [vec![1; 60], vec![2; 40]].concat());
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_long_body_at_part_boundary_completes_nothing() {
    let uploads = Uploads::start().await;
    let bytes = content(2 * PART_BYTES as usize + 1);
    let upload = uploads.create("a", bytes.len() - 1).await;
    uploads.patch(upload, 0, chunked(&bytes, PART_BYTES as usize)).send().await.problem(413);
    assert_eq!(uploads.offset(upload).await, PART_BYTES as usize, "the first part is valid");
    let rest = bytes[PART_BYTES as usize..bytes.len() - 1].to_vec();
    uploads.patch(upload, PART_BYTES as usize, rest).send().await.is(204);
    assert!(uploads.content(upload).await.expect(200).bytes == bytes[..bytes.len() - 1]);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_accepts_first_bytes() {
    let uploads = Uploads::start().await;
    let bytes = content(1000);
    let creation_with = |body: Vec<u8>| {
        uploads.creation("a", 1000).header("content-type", "application/offset+octet-stream").body(body)
    };
    let created = creation_with(bytes[..300].to_vec()).send_unchanged().await.expect(201);
    assert_eq!((created.header("upload-offset"), created.json()["version"].as_u64()), ("300", Some(2)));
    let upload = id(&created);
    uploads.patch(upload, 300, bytes[300..].to_vec()).send().await.is(204);
    assert_eq!(uploads.content(upload).await.expect(200).bytes, bytes);

    let whole = id(&creation_with(bytes.clone()).send_unchanged().await.expect(201));
    assert_eq!(uploads.content(whole).await.expect(200).bytes, bytes);

    let events = uploads.events().await;
    creation_with(content(1001)).header("content-length", "1001").send_unchanged().await.problem(413);
    assert_eq!(uploads.events().await, events, "a creation with too many bytes appends nothing");
    // A body of another type is ignored.
    let without = uploads.creation("a", 1000).body("hello").send_unchanged().await.expect(201);
    assert_eq!(without.header("upload-offset"), "0");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_key_returns_same_upload() {
    let uploads = Uploads::start().await;
    let create = |bytes, key| uploads.creation("a", bytes).header("idempotency-key", key).send_unchanged();
    let first = create(10, "one").await.expect(201);
    let upload = id(&first);
    uploads.patch(upload, 0, vec![1; 4]).send().await.is(204);
    let again = create(10, "one").await.expect(201);
    assert_eq!((id(&again), again.header("upload-offset")), (upload, "4"));
    assert_eq!(create(11, "one").await.problem(422)["type"], "/problems/idempotency-key-reused");
    assert_ne!(id(&create(10, "two").await.expect(201)), upload);
    let without = uploads.creation("a", 10).send_unchanged().await.expect(201);
    assert_ne!(id(&without), upload);
    // A repeated creation with bytes stores them once.
    let with_bytes = || {
        let creation = uploads.creation("a", 10).header("idempotency-key", "three");
        creation.header("content-type", "application/offset+octet-stream").body(vec![1; 4]).send_unchanged()
    };
    let (first, again) = (with_bytes().await.expect(201), with_bytes().await.expect(201));
    assert_eq!((id(&first), first.header("upload-offset")), (id(&again), again.header("upload-offset")));
    assert_eq!(again.header("upload-offset"), "4");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_file_completes_without_body() {
    let uploads = Uploads::start().await;
    let upload = uploads.create("empty", 0).await;
    assert_eq!(uploads.history(upload).await, ["FileUploadStarted", "FileUploadCompleted"]);
    let read = uploads.content(upload).await.expect(200);
    assert_eq!((read.bytes.len(), read.header("content-length")), (0, "0"));
    assert_eq!(uploads.offset(upload).await, 0);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_name_actor_and_tenant() {
    let uploads = Uploads::start().await;
    // A service may act for any organization; the tenant of its commands is that organization.
    let service = http_kit::Caller::service("runner").acting_for(uploads.organization);
    let job = Uuid::now_v7();
    let metadata = format!("{},produced_by_job {}", crate::support::metadata("out"), base64_of(&job.to_string()));
    let created = uploads.creation("out", 3).by(&service).header("upload-metadata", &metadata).send_unchanged().await;
    let upload = id(&created.expect(201));
    uploads.patch(upload, 0, "abc").by(&service).send().await.is(204);
    let rows =
        sqlx::query("select distinct metadata->>'tenant', metadata->>'actor' from events where aggregate_id = $1")
            .bind(upload)
            .fetch_all(&uploads.service.pool)
            .await
            .unwrap();
    let metadata_rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(metadata_rows, [(uploads.organization.to_string(), "service:runner".to_owned())]);
    let file = uploads.get(&format!("files/{upload}?min_version=3")).send().await.expect(200).json();
    assert_eq!(file["produced_by_job"], job.to_string());
    uploads.close().await;
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
