//! Who is let in.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::Value;
use service_kit::{Secrets, api_key::ApiKey};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, BOTH, Services, UPLOAD, Way, eventually, problem, secrets};

const ROOT: &str = "/api/v1/organizations";

#[tokio::test]
async fn a_valid_key_is_let_in_and_asked_about_once() {
    for way in BOTH {
        let world = Services::new(way).door().await;
        let key = world.keys.issue("viewer");
        let statuses = join_all((0..20).map(|_| world.status_with(&key))).await;
        assert_eq!(statuses, [200; 20], "{way:?}");
        assert_eq!(world.keys.asked(), 1);
        let lower_case = world.get(ROOT).header("authorization", format!("bearer {key}"));
        assert_eq!(lower_case.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn without_a_key_of_ours_nobody_is_let_in_and_nobody_is_asked() {
    let world = Services::new(Way::Http).door().await;
    let good = world.keys.issue("owner");
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
        let answer = world.get(ROOT).header("authorization", &header).send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{header}");
        problem(answer, 401).await;
    }
    problem(world.get(ROOT).send().await.unwrap(), 401).await;
    let twice = world.get(ROOT).bearer_auth(&good).bearer_auth(&good);
    problem(twice.send().await.unwrap(), 401).await;
    assert_eq!(world.keys.asked(), 0);
}

#[tokio::test]
async fn a_revoked_key_works_for_five_seconds_at_most() {
    let world = Services::new(Way::Http).door().await;
    let key = world.keys.issue("member");
    let begun = Instant::now();
    assert_eq!(world.status_with(&key).await, 200);
    world.keys.revoke_all();
    eventually(Duration::from_secs(8), async || world.status_with(&key).await == 401).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_unknown_key_is_remembered_for_a_moment_only() {
    let world = Services::new(Way::Local).door().await;
    let key = ApiKey::issue(Uuid::now_v7(), &secrets());
    let text = key.reveal();
    let statuses = join_all((0..20).map(|_| world.status_with(&text))).await;
    assert_eq!(statuses, [401; 20]);
    assert_eq!(world.keys.asked(), 1);
    world.keys.know(&key, "member");
    eventually(Duration::from_secs(3), async || world.status_with(&text).await == 200).await;
}

#[tokio::test]
async fn the_operator_has_a_key_that_no_service_is_asked_about() {
    for way in BOTH {
        let world = Services::new(way).door().await;
        let seen: Value = world.get(ROOT).bearer_auth(ADMIN_KEY).send().await.unwrap().json().await.unwrap();
        assert_eq!(seen["caller"]["actor"], "operator");
        assert_eq!(seen["caller"]["role"], "operator");
        assert_eq!(world.keys.asked(), 0);
    }
}

#[tokio::test]
async fn no_key_of_an_organization_reaches_beyond_it() {
    let world = Services::new(Way::Http).door().await;
    for role in ["operator", "service", "root"] {
        let key = world.keys.issue(role);
        assert_eq!(world.status_with(&key).await, 500, "{role}");
    }
}

#[tokio::test]
async fn where_keys_can_t_be_checked_nobody_is_let_in() {
    let mut services = Services::new(Way::Http);
    services.down.push("organization");
    let world = services.door().await;
    let key = world.keys.issue("owner");
    let answer = world.get(UPLOAD).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    problem(answer, 503).await;
}

#[tokio::test]
async fn what_uploads_can_do_is_told_to_everybody() {
    for way in BOTH {
        let world = Services::new(way).door().await;
        for path in [UPLOAD, UPLOAD.strip_suffix("/1").unwrap()] {
            let discovery = world.request(Method::OPTIONS, path).header("x-catacloud-role", "service");
            let seen: Value = discovery.send().await.unwrap().json().await.unwrap();
            assert_eq!((&seen["service"], &seen["caller"]), (&"file".into(), &Value::Null));
            assert_eq!(seen["headers"]["x-catacloud-role"], Value::Null);
        }
        let elsewhere = world.request(Method::OPTIONS, ROOT).send().await.unwrap();
        problem(elsewhere, 401).await;
    }
}
