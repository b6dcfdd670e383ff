//! Invalid requests are rejected and append no event.

use axum::http::Method;
use http_kit::{Caller, Role};
use uuid::Uuid;

use crate::support::{Uploads, member, metadata};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_creation_appends_nothing() {
    let uploads = Uploads::start().await;
    let good = [("upload-length", "10"), ("upload-metadata", "filename YQ==")];
    let long_name = metadata(&"x".repeat(201));
    let huge_metadata = format!("filename YQ==,x {}", "YWFh".repeat(3000));
    let job = "filename YQ==,produced_by_job MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDA3";
    let cases: Vec<(&'static str, &str, u16)> = vec![
        ("upload-length", "", 400),
        ("upload-length", "ten", 400),
        ("upload-length", "-1", 400),
        ("upload-length", "+1", 400),
        ("upload-length", "1.5", 400),
        ("upload-length", "5497558138881", 413),
        ("upload-length", "99999999999999999999999", 413),
        ("upload-defer-length", "1", 400),
        ("upload-concat", "partial", 400),
        ("upload-metadata", "", 422),
        ("upload-metadata", "filename", 422),
        ("upload-metadata", "filename YQ", 400),
        ("upload-metadata", "filename YQ==,filename YQ==", 400),
        ("upload-metadata", "filename /w==", 400),
        ("upload-metadata", "filename Li4=", 422),
        ("upload-metadata", "filename YQ==,filetype Y3N2", 422),
        ("upload-metadata", &long_name, 422),
        ("upload-metadata", &huge_metadata, 400),
        ("upload-metadata", job, 403),
        ("idempotency-key", "a b", 400),
        ("tus-resumable", "0.2.2", 412),
        ("tus-resumable", "1.0.1", 412),
    ];
    for (name, value, status) in cases {
        let mut request = uploads.tus(Method::POST, "uploads");
        for (name, value) in good.into_iter().chain([(name, value)]) {
            request = request.header(name, value);
        }
        let answer = request.send_unchanged().await;
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.json());
        assert_eq!(answer.header("tus-resumable"), "1.0.0");
        answer.problem(status);
    }
    let without_length = uploads.tus(Method::POST, "uploads").header("upload-metadata", "filename YQ==");
    without_length.send_unchanged().await.problem(400);
    let without_metadata = uploads.tus(Method::POST, "uploads").header("upload-length", "10");
    without_metadata.send_unchanged().await.problem(422);
    let without_version = uploads.service.post(uploads.path("uploads")).by(&uploads.member);
    let refused = without_version.header("upload-length", "10").send_unchanged().await;
    assert_eq!(refused.header("tus-version"), "1.0.0");
    refused.problem(412);
    assert_eq!(uploads.events().await, 0);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_patch_changes_nothing() {
    let uploads = Uploads::start().await;
    let upload = uploads.create("a", 10).await;
    let patch = || uploads.patch(upload, 0, "abc");
    patch().header("content-type", "application/octet-stream").send().await.problem(415);
    patch().header("upload-offset", "zero").send().await.problem(400);
    patch().header("upload-offset", "").send().await.problem(400);
    patch().header("upload-checksum", "sha1 AAAA").send().await.problem(400);
    patch().header("tus-resumable", "2.0.0").send().await.problem(412);
    let path = format!("uploads/{upload}");
    let without_offset = uploads.tus(Method::PATCH, &path).header("content-type", "application/offset+octet-stream");
    without_offset.body("abc").send().await.problem(400);
    uploads.tus(Method::PATCH, &path).header("upload-offset", "0").body("abc").send().await.problem(415);
    uploads.patch(Uuid::now_v7(), 0, "abc").send().await.problem(404);
    uploads.tus(Method::PATCH, "uploads/1").send().await.problem(400);
    uploads.tus(Method::PUT, &path).send().await.problem(405);
    let without_version = uploads.service.request(Method::HEAD, uploads.path(&path)).by(&uploads.member);
    without_version.send().await.is(412);
    assert_eq!((uploads.events().await, uploads.objects(upload).len()), (1, 0));
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_files_and_uploads_return_404() {
    let uploads = Uploads::start().await;
    let (file, upload) = (uploads.upload("a", b"abc").await, uploads.create("b", 10).await);
    uploads.get(&format!("files/{file}?min_version=3")).send().await.is(200);
    let events = uploads.events().await;
    let other = Uuid::now_v7();
    // A member of another organization asks below both organizations; services ask below the wrong organization.
    let requests = [
        (member(other), uploads.organization),
        (member(other), other),
        (Caller::service("runner"), other),
        (Caller::operator(), other),
    ];
    for (caller, organization) in requests {
        let cases = [
            (Method::HEAD, format!("uploads/{upload}")),
            (Method::PATCH, format!("uploads/{upload}")),
            (Method::DELETE, format!("uploads/{upload}")),
            (Method::GET, format!("files/{file}")),
            (Method::GET, format!("files/{file}/content")),
            (Method::DELETE, format!("files/{file}")),
        ];
        for (method, rest) in cases {
            let request =
                uploads.service.request(method.clone(), format!("/api/v1/organizations/{organization}/{rest}"));
            let mut request = request.by(&caller).header("tus-resumable", "1.0.0");
            if method == Method::PATCH {
                request =
                    request.header("upload-offset", "0").header("content-type", "application/offset+octet-stream");
            }
            assert_eq!(request.send().await.status, 404, "{method} {rest}");
        }
    }
    let creation = uploads.creation("a", 1).by(&member(other)).send_unchanged().await;
    creation.problem(404);
    assert_eq!(uploads.events().await, events);
    assert_eq!(uploads.content(file).await.expect(200).bytes, "abc");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_may_only_read() {
    let uploads = Uploads::start().await;
    let (file, upload) = (uploads.upload("a", b"abc").await, uploads.create("b", 10).await);
    let events = uploads.events().await;
    let viewer = Caller::key(Uuid::now_v7(), uploads.organization, Role::Viewer);
    uploads.creation("a", 1).by(&viewer).send_unchanged().await.problem(403);
    uploads.patch(upload, 0, "abc").by(&viewer).send().await.problem(403);
    uploads.tus(Method::DELETE, &format!("uploads/{upload}")).by(&viewer).send().await.problem(403);
    assert_eq!(uploads.events().await, events);
    let read = uploads.get(&format!("files/{file}/content")).by(&viewer).send().await.expect(200);
    assert_eq!(read.bytes, "abc");
    let unauthenticated = uploads.service.get(uploads.path(&format!("files/{file}"))).send().await;
    unauthenticated.problem(401);
    uploads.close().await;
}
