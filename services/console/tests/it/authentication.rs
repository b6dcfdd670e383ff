//! Authentication by API key.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http_kit::{Secrets, api_key::ApiKey};
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{ADMIN_KEY, DEPLOYMENTS, Deployment, TestServices, UPLOAD, assert_problem, eventually, secrets};

const ROOT: &str = "/api/v1/organizations";

#[tokio::test]
async fn valid_key_is_looked_up_once() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let key = gateway.keys.issue("viewer");
        let statuses = join_all((0..20).map(|_| gateway.status_with(&key))).await;
        assert_eq!(statuses, [200; 20], "{deployment:?}");
        assert_eq!(gateway.keys.lookups(), 1);
        let lower_case = gateway.get(ROOT).header("authorization", format!("bearer {key}"));
        assert_eq!(lower_case.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn foreign_key_is_rejected_without_lookup() {
    let gateway = TestServices::new(Deployment::Separate).start().await;
    let good = gateway.keys.issue("owner");
    let another_installation = Secrets::new("another secret, as long").unwrap();
    let forged = ApiKey::issue(Uuid::now_v7(), &another_installation).reveal();
    let wrong_admin = format!("{ADMIN_KEY}0");
    let headers = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        good.clone(),
        format!("Basic {good}"),
        format!("Bearer {}", &good[..good.len() - 1]),
        format!("Bearer {good} {good}"),
        format!("Bearer {forged}"),
        format!("Bearer {wrong_admin}"),
        format!("Bearer {}", &ADMIN_KEY[..ADMIN_KEY.len() - 1]),
    ];
    for header in headers {
        let answer = gateway.get(ROOT).header("authorization", &header).send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{header}");
        assert_problem(answer, 401).await;
    }
    assert_problem(gateway.get(ROOT).send().await.unwrap(), 401).await;
    let twice = gateway.get(ROOT).bearer_auth(&good).bearer_auth(&good);
    assert_problem(twice.send().await.unwrap(), 401).await;
    assert_eq!(gateway.keys.lookups(), 0);
}

#[tokio::test]
async fn revoked_key_works_for_five_seconds_at_most() {
    let gateway = TestServices::new(Deployment::Separate).start().await;
    let key = gateway.keys.issue("member");
    let start = Instant::now();
    assert_eq!(gateway.status_with(&key).await, 200);
    gateway.keys.revoke_all();
    eventually(Duration::from_secs(8), async || gateway.status_with(&key).await == 401).await;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn unknown_key_is_cached_briefly() {
    let gateway = TestServices::new(Deployment::Colocated).start().await;
    let key = ApiKey::issue(Uuid::now_v7(), &secrets());
    let text = key.reveal();
    let statuses = join_all((0..20).map(|_| gateway.status_with(&text))).await;
    assert_eq!(statuses, [401; 20]);
    assert_eq!(gateway.keys.lookups(), 1);
    gateway.keys.register(&key, "member");
    eventually(Duration::from_secs(3), async || gateway.status_with(&text).await == 200).await;
}

#[tokio::test]
async fn operator_key_needs_no_lookup() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let echoed: Value = gateway.get(ROOT).bearer_auth(ADMIN_KEY).send().await.unwrap().json().await.unwrap();
        assert_eq!(echoed["caller"]["actor"], "operator");
        assert_eq!(echoed["caller"]["role"], "operator");
        assert_eq!(gateway.keys.lookups(), 0);
    }
}

#[tokio::test]
async fn api_key_with_platform_role_is_rejected() {
    let gateway = TestServices::new(Deployment::Separate).start().await;
    for role in ["operator", "service", "root"] {
        let key = gateway.keys.issue(role);
        assert_eq!(gateway.status_with(&key).await, 500, "{role}");
    }
}

#[tokio::test]
async fn failed_lookup_rejects_request() {
    let mut services = TestServices::new(Deployment::Separate);
    services.down.push("organization");
    let gateway = services.start().await;
    let key = gateway.keys.issue("owner");
    let answer = gateway.get(UPLOAD).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_problem(answer, 503).await;
}

#[tokio::test]
async fn upload_capabilities_need_no_key() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        for path in [UPLOAD, UPLOAD.strip_suffix("/1").unwrap()] {
            let discovery = gateway.request(Method::OPTIONS, path).header("x-catacloud-role", "service");
            let echoed: Value = discovery.send().await.unwrap().json().await.unwrap();
            assert_eq!((&echoed["service"], &echoed["caller"]), (&"file".into(), &Value::Null));
            assert_eq!(echoed["headers"]["x-catacloud-role"], Value::Null);
        }
        let other_path = gateway.request(Method::OPTIONS, ROOT).send().await.unwrap();
        assert_problem(other_path, 401).await;
    }
}
