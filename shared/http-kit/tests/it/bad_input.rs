//! Every bad input gets a problem with its status, type and trace id.

use uuid::Uuid;

use crate::support::{assert_problem, jobs, member, request, send};

const ORGANIZATION: Uuid = Uuid::from_u128(1);
const JOBS: &str = "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs";
const JOB: &str =
    "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs/00000000-0000-0000-0000-000000000002";
const OTHERS: &str = "/api/v1/organizations/00000000-0000-0000-0000-000000000009/jobs";
const JSON: (&str, &str) = ("content-type", "application/json");
const KEY: (&str, &str) = ("idempotency-key", "k-1");
const GOOD: &str = r#"{"name":"a","priority":1}"#;

struct Case {
    request: (&'static str, &'static str),
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    kind: &'static str,
}

const fn case(
    request: (&'static str, &'static str),
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    kind: &'static str,
) -> Case {
    Case { request, headers, body, status, kind }
}

const CASES: [Case; 31] = [
    // bodies
    case(("POST", JOBS), &[JSON, KEY], "{", 400, "/problems/malformed-json"),
    case(("POST", JOBS), &[JSON, KEY], "", 400, "/problems/malformed-json"),
    case(("POST", JOBS), &[JSON, KEY], r#"{"name":"a","priority":1,"x":1}"#, 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[JSON, KEY], r#"{"name":"a"}"#, 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[JSON, KEY], r#"{"name":7,"priority":1}"#, 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[JSON, KEY], r#"{"name":"a","priority":256}"#, 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[JSON, KEY], r#"{"name":"a","priority":-1}"#, 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[JSON, KEY], "7", 422, "/problems/unprocessable"),
    case(("POST", JOBS), &[KEY], GOOD, 415, "/problems/unsupported-media-type"),
    case(("POST", JOBS), &[KEY], "", 415, "/problems/unsupported-media-type"),
    case(("POST", JOBS), &[KEY, ("content-type", "text/plain")], GOOD, 415, "/problems/unsupported-media-type"),
    case(("POST", "/api/v1/plain-json"), &[JSON], "{", 400, "/problems/malformed-json"),
    case(("POST", "/api/v1/plain-json"), &[JSON], "{}", 422, "/problems/unprocessable"),
    case(("POST", "/api/v1/plain-json"), &[], GOOD, 415, "/problems/unsupported-media-type"),
    // axum's own extractors
    case(("POST", "/api/v1/framework-json"), &[JSON], "{", 400, "/problems/bad-request"),
    case(("POST", "/api/v1/framework-json"), &[JSON], "{}", 422, "/problems/unprocessable"),
    case(("POST", "/api/v1/framework-json"), &[], GOOD, 415, "/problems/unsupported-media-type"),
    case(("GET", "/api/v1/framework-path/1"), &[], "", 400, "/problems/bad-request"),
    // routes
    case(("GET", "/nowhere"), &[], "", 404, "/problems/not-found"),
    case(("GET", "/api/v1/nowhere"), &[], "", 404, "/problems/not-found"),
    case(("PATCH", JOBS), &[], "", 405, "/problems/method-not-allowed"),
    case(("GET", "/api/v1/organizations/1/jobs"), &[], "", 400, "/problems/malformed-path"),
    case(("GET", OTHERS), &[], "", 404, "/problems/not-found"),
    case(("POST", OTHERS), &[JSON, KEY], GOOD, 404, "/problems/not-found"),
    // headers
    case(("POST", JOBS), &[JSON], GOOD, 400, "/problems/idempotency-key-required"),
    case(("POST", JOBS), &[JSON, ("idempotency-key", "a b")], GOOD, 400, "/problems/idempotency-key-malformed"),
    case(("POST", JOBS), &[JSON, KEY, KEY], GOOD, 400, "/problems/bad-request"),
    case(("PUT", JOB), &[JSON, ("if-match", "3")], GOOD, 400, "/problems/if-match-malformed"),
    case(("PUT", JOB), &[JSON], GOOD, 428, "/problems/precondition-required"),
    // internal errors
    case(("GET", "/api/v1/panic"), &[], "", 500, "/problems/internal"),
    case(("GET", "/api/v1/internal"), &[], "", 500, "/problems/internal"),
];

#[tokio::test]
async fn bad_request_is_a_problem() {
    for Case { request: (method, path), headers, body, status, kind } in CASES {
        let response = send(jobs(), request(&member(ORGANIZATION), method, path, headers, body)).await;
        println!("{method} {path} {headers:?} {body}");
        assert_problem(&response, status, kind);
    }
}

#[tokio::test]
async fn bad_query_is_a_problem() {
    let queries = [
        ("limit=0", "/problems/bad-request"),
        ("limit=201", "/problems/bad-request"),
        ("limit=many", "/problems/malformed-query"),
        ("limit=1&limit=2", "/problems/malformed-query"),
        ("cursor=!", "/problems/bad-cursor"),
    ];
    for (query, kind) in queries {
        let path = format!("{JOBS}?{query}");
        let response = send(jobs(), request(&member(ORGANIZATION), "GET", &path, &[], "")).await;
        assert_problem(&response, 400, kind);
    }
}

#[tokio::test]
async fn large_body_is_413_with_and_without_length() {
    let large = format!(r#"{{"name":"{}","priority":1}}"#, "x".repeat(1024 * 1024));
    for path in [JOBS, "/api/v1/plain-json", "/api/v1/framework-json"] {
        let declared = request(&member(ORGANIZATION), "POST", path, &[JSON, KEY], &large);
        assert_problem(&send(jobs(), declared).await, 413, "/problems/payload-too-large");

        let chunks = large.as_bytes().chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
        let chunks = axum::body::Body::from_stream(futures::stream::iter(chunks.collect::<Vec<_>>()));
        let chunked = request(&member(ORGANIZATION), "POST", path, &[JSON, KEY], "").map(|_| chunks);
        assert_problem(&send(jobs(), chunked).await, 413, "/problems/payload-too-large");
    }
    let fits = format!(r#"{{"name":"{}","priority":1}}"#, "x".repeat(1024 * 1024 - 100));
    let fits = request(&member(ORGANIZATION), "POST", JOBS, &[JSON, KEY], &fits);
    assert_eq!(send(jobs(), fits).await.status, 201);
}

#[tokio::test]
async fn caller_is_refused_without_the_internal_token() {
    for token in [None, Some(""), Some("0000"), Some("Bearer x")] {
        for method in ["GET", "POST"] {
            let mut request = request(&member(ORGANIZATION), method, JOBS, &[JSON, KEY], GOOD);
            request.headers_mut().remove("x-catacloud-internal");
            if let Some(token) = token {
                request.headers_mut().insert("x-catacloud-internal", token.parse().unwrap());
            }
            let response = send(jobs(), request).await;
            assert_problem(&response, 401, "/problems/unauthorized");
            assert_eq!(response.headers["www-authenticate"], "Bearer");
        }
    }
}

#[tokio::test]
async fn wrong_method_lists_allowed_methods() {
    let response = send(jobs(), request(&member(ORGANIZATION), "PATCH", JOBS, &[], "")).await;
    let allowed = response.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("POST") && allowed.contains("GET"), "{allowed}");
}

#[tokio::test]
async fn wrong_shape_has_a_pointer() {
    let body = r#"{"name":7,"priority":1}"#;
    let response = send(jobs(), request(&member(ORGANIZATION), "POST", JOBS, &[JSON, KEY], body)).await;
    assert_eq!(response.body["errors"][0]["pointer"], "/name");
}

#[tokio::test]
async fn version_not_reached_is_503_with_retry_after() {
    let path = format!("{JOB}?min_version=4");
    let late = send(jobs(), request(&member(ORGANIZATION), "GET", &path, &[], "")).await;
    assert_problem(&late, 503, "/problems/version-not-reached");
    assert_eq!(late.headers["retry-after"], "1");
    let path = format!("{JOB}?min_version=3");
    assert_eq!(send(jobs(), request(&member(ORGANIZATION), "GET", &path, &[], "")).await.status, 200);
}
