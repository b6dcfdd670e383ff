//! Which request goes where, and what goes with it.

use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{ADMIN_KEY, BOTH, ORGANIZATION, Services, UPLOAD, World, problem};

const ROOT: &str = "/api/v1/organizations";

async fn seen(world: &World, method: Method, path: &str, key: &str) -> Value {
    let answer = world.request(method, path).bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_str(answer.headers()["x-seen"].to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn each_path_leads_to_its_service() {
    let beneath = [
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
    for way in BOTH {
        let world = Services::new(way).door().await;
        let key = world.keys.issue("member");
        assert_eq!(seen(&world, Method::GET, ROOT, &key).await["service"], "organization");
        for (rest, service) in beneath {
            let path = format!("{ROOT}/{ORGANIZATION}{rest}");
            let seen = seen(&world, Method::GET, &path, &key).await;
            assert_eq!((&seen["service"], &seen["path"]), (&service.into(), &path.as_str().into()), "{way:?}");
        }
    }
}

#[tokio::test]
async fn every_method_goes_through_with_query_and_body() {
    let methods =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    for way in BOTH {
        let world = Services::new(way).door().await;
        let key = world.keys.issue("member");
        for method in methods.clone() {
            let seen = seen(&world, method.clone(), &format!("{UPLOAD}?part=2&of=a%2Fb"), &key).await;
            assert_eq!(seen["method"], method.as_str());
            assert_eq!(seen["query"], "part=2&of=a%2Fb");
        }
        let sent = world.request(Method::PUT, UPLOAD).bearer_auth(&key).header("if-match", "\"3\"").body("hello");
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.headers()["etag"], "\"7\"");
        assert!(!answer.headers().contains_key("keep-alive"), "that was said to the door only");
        let seen: Value = answer.json().await.unwrap();
        assert_eq!((&seen["body"], &seen["headers"]["if-match"]), (&"hello".into(), &"\"3\"".into()));
        assert_eq!(seen["headers"]["content-length"], "5");
        assert_eq!(seen["headers"]["transfer-encoding"], Value::Null);
    }
}

#[tokio::test]
async fn the_service_is_told_by_the_door_who_asks_and_by_nobody_else() {
    for way in BOTH {
        let world = Services::new(way).door().await;
        let key = world.keys.issue("member");
        let spoofed = world
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
        let seen: Value = spoofed.send().await.unwrap().json().await.unwrap();
        assert_eq!(seen["caller"]["role"], "member", "{way:?}: {seen}");
        assert_eq!(seen["caller"]["organization"], ORGANIZATION.to_string());
        assert!(seen["caller"]["actor"].as_str().unwrap().starts_with("key:"));
        for name in ["x-catacloud-user", "x-catacloud-future", "x-hop", "authorization"] {
            assert_eq!(seen["headers"][name], Value::Null, "{name}");
        }
    }
}

#[tokio::test]
async fn nothing_internal_can_be_reached() {
    for way in BOTH {
        let world = Services::new(way).door().await;
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
                let answer = world.request(method, path).bearer_auth(ADMIN_KEY).send().await.unwrap();
                problem(answer, 404).await;
            }
        }
    }
}

#[tokio::test]
async fn a_path_with_two_readings_leads_nowhere() {
    let world = Services::new(crate::support::Way::Http).door().await;
    let paths = [
        "/api/v1/organizations/../../../internal/v1/organization/authenticate",
        "/api/v1/organizations/x/%2e%2e/%2e%2e/%2E%2e/%2e%2e/internal/v1/organization/authenticate",
        "/api/v1/organizations/x/jobs/../members",
        "/api/v1/organizations/x/jobs/..",
    ];
    for path in paths {
        // A well-behaved client would never send these.
        let mut connection = TcpStream::connect(world.address).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    assert_eq!(world.keys.asked(), 0);
}

#[tokio::test]
async fn the_trace_goes_on() {
    const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
    let sent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    for way in BOTH {
        let world = Services::new(way).door().await;
        let request = world.get(ROOT).bearer_auth(ADMIN_KEY).header("traceparent", &sent);
        let seen: Value = request.send().await.unwrap().json().await.unwrap();
        let traceparent = seen["headers"]["traceparent"].as_str().unwrap();
        assert!(traceparent.contains(TRACE_ID), "{traceparent}");
        assert_ne!(traceparent, sent, "the door has a span of its own");
        let untraced: Value = world.get(ROOT).bearer_auth(ADMIN_KEY).send().await.unwrap().json().await.unwrap();
        assert!(untraced["headers"]["traceparent"].is_string());
    }
}
