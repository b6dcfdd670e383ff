//! Routes, headers and paths of forwarded requests.

use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{ADMIN_KEY, DEPLOYMENTS, ORGANIZATION, TestGateway, TestServices, UPLOAD, assert_problem};

const ROOT: &str = "/api/v1/organizations";

async fn echoed_request(gateway: &TestGateway, method: Method, path: &str, key: &str) -> Value {
    let answer = gateway.request(method, path).bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_str(answer.headers()["x-echo"].to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn path_leads_to_its_service() {
    let routes = [
        ("", "organization"),
        ("/members", "organization"),
        ("/members/7", "organization"),
        ("/api-keys", "organization"),
        ("/jobsworth", "organization"),
        ("/job-configurations", "job"),
        ("/job-configurations/7", "job"),
        ("/jobs", "job"),
        ("/jobs/7/queue", "job"),
        ("/jobs/7/files", "job"),
        ("/uploads", "file"),
        ("/uploads/7", "file"),
        ("/files", "file"),
        ("/files/7/content", "file"),
        ("/usage", "billing"),
        ("/costs", "billing"),
    ];
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let key = gateway.keys.issue("member");
        assert_eq!(echoed_request(&gateway, Method::GET, ROOT, &key).await["service"], "organization");
        for (rest, service) in routes {
            let path = format!("{ROOT}/{ORGANIZATION}{rest}");
            let echoed = echoed_request(&gateway, Method::GET, &path, &key).await;
            assert_eq!(
                (&echoed["service"], &echoed["path"]),
                (&service.into(), &path.as_str().into()),
                "{deployment:?}"
            );
        }
    }
}

#[tokio::test]
async fn all_methods_are_forwarded_with_query_and_body() {
    let methods =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let key = gateway.keys.issue("member");
        for method in methods.clone() {
            let echoed = echoed_request(&gateway, method.clone(), &format!("{UPLOAD}?part=2&of=a%2Fb"), &key).await;
            assert_eq!(echoed["method"], method.as_str());
            assert_eq!(echoed["query"], "part=2&of=a%2Fb");
        }
        let sent = gateway.request(Method::PUT, UPLOAD).bearer_auth(&key).header("if-match", "\"3\"").body("hello");
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.headers()["etag"], "\"7\"");
        assert!(!answer.headers().contains_key("keep-alive"), "a hop-by-hop header is not forwarded");
        let echoed: Value = answer.json().await.unwrap();
        assert_eq!((&echoed["body"], &echoed["headers"]["if-match"]), (&"hello".into(), &"\"3\"".into()));
        assert_eq!(echoed["headers"]["content-length"], "5");
        assert_eq!(echoed["headers"]["transfer-encoding"], Value::Null);
    }
}

#[tokio::test]
async fn client_cannot_set_caller_headers() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let key = gateway.keys.issue("member");
        let spoofed = gateway
            .get(&format!("{ROOT}/{ORGANIZATION}/jobs"))
            .bearer_auth(&key)
            .header("x-catacloud-internal", "guessed")
            .header("x-catacloud-role", "service")
            .header("x-catacloud-actor", "operator")
            .header("x-catacloud-user", "0198c0de-0000-7000-8000-000000000002")
            .header("x-catacloud-organization", "0198c0de-0000-7000-8000-000000000003")
            .header("x-catacloud-future", "1")
            .header("connection", "x-catacloud-internal, x-hop")
            .header("x-hop", "1");
        let echoed: Value = spoofed.send().await.unwrap().json().await.unwrap();
        assert_eq!(echoed["caller"]["role"], "member", "{deployment:?}: {echoed}");
        assert_eq!(echoed["caller"]["organization"], ORGANIZATION.to_string());
        assert!(echoed["caller"]["actor"].as_str().unwrap().starts_with("key:"));
        for name in ["x-catacloud-user", "x-catacloud-future", "x-hop", "authorization"] {
            assert_eq!(echoed["headers"][name], Value::Null, "{name}");
        }
    }
}

#[tokio::test]
async fn internal_paths_return_404() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let paths = [
            "/internal/v1/organization/authenticate",
            "/internal/v1/job/claims",
            "/internal",
            "/api/v1/internal",
            "/api/v1",
            "/api/v2/organizations",
            "/readyz/x",
            "/api/v1/organizationsx",
            "/favicon.ico",
        ];
        for path in paths {
            for method in [Method::GET, Method::POST] {
                let answer = gateway.request(method, path).bearer_auth(ADMIN_KEY).send().await.unwrap();
                assert_problem(answer, 404).await;
            }
        }
    }
}

#[tokio::test]
async fn ambiguous_path_returns_404() {
    let gateway = TestServices::new(crate::support::Deployment::Separate).start().await;
    let paths = [
        "/api/v1/organizations/../../../internal/v1/organization/authenticate",
        "/api/v1/organizations/x/%2e%2e/%2e%2e/%2E%2e/%2e%2e/internal/v1/organization/authenticate",
        "/api/v1/organizations/x/jobs/../members",
        "/api/v1/organizations/x/jobs/..",
    ];
    for path in paths {
        // HTTP clients normalize these paths, so the test writes the request itself.
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    assert_eq!(gateway.keys.lookups(), 0);
}

#[tokio::test]
async fn trace_continues_in_service() {
    const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
    let sent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let request = gateway.get(ROOT).bearer_auth(ADMIN_KEY).header("traceparent", &sent);
        let echoed: Value = request.send().await.unwrap().json().await.unwrap();
        let traceparent = echoed["headers"]["traceparent"].as_str().unwrap();
        assert!(traceparent.contains(TRACE_ID), "{traceparent}");
        assert_ne!(traceparent, sent, "the gateway has its own span");
        let untraced: Value = gateway.get(ROOT).bearer_auth(ADMIN_KEY).send().await.unwrap().json().await.unwrap();
        assert!(untraced["headers"]["traceparent"].is_string());
    }
}
