//! Aborted uploads, deleted files, and the cleanup of their parts.

use axum::http::Method;
use http_kit::{Caller, Role};
use uuid::Uuid;

use crate::support::{Uploads, content, interrupted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abort_removes_upload_and_frees_bytes() {
    let uploads = Uploads::start().await;
    let upload = uploads.create("a", 100).await;
    uploads.patch(upload, 0, vec![1; 60]).send().await.is(204);
    let path = format!("uploads/{upload}");
    let aborted = uploads.tus(Method::DELETE, &path).send().await.expect(204);
    assert_eq!((aborted.header("tus-resumable"), aborted.header("etag")), ("1.0.0", "\"3\""));
    uploads.service.eventually(|| async { uploads.objects(upload).is_empty().then_some(()) }).await;
    uploads.tus(Method::HEAD, &path).send().await.is(404);
    uploads.patch(upload, 60, vec![1; 40]).send().await.problem(404);
    uploads.tus(Method::DELETE, &path).send().await.problem(404);
    assert_eq!(uploads.history(upload).await.last().unwrap(), "FileUploadAborted");
    let file_json = uploads.get(&format!("files/{upload}?min_version=3")).send().await.expect(200).json();
    assert_eq!((&file_json["status"], &file_json["bytes"]), (&"aborted".into(), &0.into()));
    // An upload without bytes.
    let empty = uploads.create("b", 100).await;
    uploads.tus(Method::DELETE, &format!("uploads/{empty}")).send().await.is(204);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_received_after_abort_are_deleted() {
    let uploads = Uploads::start().await;
    let upload = uploads.create("a", 400).await;
    let (abort_now, aborting) = tokio::sync::oneshot::channel::<()>();
    let (aborted, resume) = tokio::sync::oneshot::channel::<()>();
    let chunks = futures::stream::unfold((0, Some(abort_now), Some(resume)), |(chunk, abort_now, resume)| async move {
        match (chunk, abort_now, resume) {
            (0, abort_now, resume) => Some((Ok::<_, std::io::Error>(vec![1; 200]), (1, abort_now, resume))),
            (1, Some(abort_now), Some(resume)) => {
                abort_now.send(()).unwrap();
                resume.await.unwrap();
                Some((Ok(vec![2; 200]), (2, None, None)))
            }
            _ => None,
        }
    });
    let patch = uploads.patch(upload, 0, axum::body::Body::from_stream(chunks)).send();
    let abort = async {
        aborting.await.unwrap();
        uploads.tus(Method::DELETE, &format!("uploads/{upload}")).send().await.is(204);
        aborted.send(()).unwrap();
    };
    let (patched, ()) = tokio::join!(patch, abort);
    patched.problem(404);
    assert_eq!(uploads.history(upload).await, ["FileUploadStarted", "FileUploadAborted"]);
    assert_eq!(uploads.objects(upload).len(), 0);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_removes_content_and_frees_bytes() {
    let uploads = Uploads::start().await;
    let bytes = content(1000);
    let (file, kept) = (uploads.upload("a", &bytes).await, uploads.upload("b", &bytes).await);
    let path = uploads.path(&format!("files/{file}"));
    let delete = || uploads.service.request(Method::DELETE, path.clone());
    let viewer = Caller::key(Uuid::now_v7(), uploads.organization, Role::Viewer);
    delete().by(&viewer).send().await.problem(403);
    delete().by(&uploads.member).header("if-match", "\"2\"").send().await.problem(412);
    let request = || delete().by(&uploads.member).header("if-match", "\"3\"").header("idempotency-key", "k").send();
    let first = request().await.expect(200);
    assert_eq!((&first.json()["id"], &first.json()["version"]), (&file.to_string().into(), &4.into()));
    assert_eq!(request().await.expect(200).json(), first.json(), "the repeated request returns the first result");
    delete().by(&uploads.member).send().await.problem(404);
    uploads.content(file).await.problem(404);
    uploads.tus(Method::HEAD, &format!("uploads/{file}")).send().await.is(404);
    uploads.service.eventually(|| async { uploads.objects(file).is_empty().then_some(()) }).await;
    let file_json = uploads.get(&format!("files/{file}?min_version=4")).send().await.expect(200).json();
    assert_eq!((&file_json["status"], &file_json["bytes"]), (&"deleted".into(), &0.into()));
    assert_eq!(uploads.content(kept).await.expect(200).bytes, bytes, "the other file is unchanged");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abort_of_file_and_deletion_of_upload_fail() {
    let uploads = Uploads::start().await;
    let (file, upload) = (uploads.upload("a", b"abc").await, uploads.create("b", 10).await);
    uploads.patch(upload, 0, interrupted(b"ab")).send().await.problem(400);
    let events = uploads.events().await;
    let refused = uploads.tus(Method::DELETE, &format!("uploads/{file}")).send().await.problem(409);
    assert_eq!(refused["type"], "/problems/upload-complete");
    let delete = uploads.service.request(Method::DELETE, uploads.path(&format!("files/{upload}")));
    assert_eq!(delete.by(&uploads.member).send().await.problem(409)["type"], "/problems/upload-incomplete");
    assert_eq!(uploads.events().await, events);
    uploads.close().await;
}
