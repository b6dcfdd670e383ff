//! Member routes.

use axum::http::Method;
use http_kit::{Caller, Role};
use serde_json::{Value, json};

use crate::support::{Acme, uuid};

fn role_of(view: &Value, user: uuid::Uuid) -> Option<String> {
    let members = view["members"].as_array().unwrap();
    let member = members.iter().find(|member| uuid(&member["user_id"]) == user)?;
    Some(member["role"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn member_is_added_changed_and_removed() {
    let acme = Acme::start().await;
    let admin = acme.caller(Role::Admin);
    let body = json!({ "email": "bob@example.org", "name": "Bob", "role": "viewer" });
    let added = acme.post("/members", &admin, &body).await.expect(201);
    let bob = uuid(&added.json()["user_id"]);
    assert_eq!(added.json(), json!({ "id": acme.id, "user_id": bob, "version": 3 }));
    assert_eq!(added.header("location"), acme.path(&format!("/members/{bob}")));
    assert_eq!(added.header("etag"), "\"3\"");
    let view = acme.read(3).await;
    assert_eq!(view["members"].as_array().unwrap().len(), 2);
    assert_eq!(role_of(&view, bob).as_deref(), Some("viewer"));

    let of_bob = format!("/members/{bob}");
    let changed = acme.send(Method::PATCH, &of_bob, &admin, &json!({ "role": "admin" })).await.expect(200);
    assert_eq!(changed.json(), json!({ "id": acme.id, "version": 4 }));
    assert_eq!(role_of(&acme.read(4).await, bob).as_deref(), Some("admin"));

    let removed = acme.send(Method::DELETE, &of_bob, &admin, &Value::Null).await.expect(200);
    assert_eq!(removed.json(), json!({ "id": acme.id, "version": 5 }));
    assert_eq!(role_of(&acme.read(5).await, bob), None);
    acme.send(Method::DELETE, &of_bob, &admin, &Value::Null).await.problem(404);

    let (again, version) = acme.add("BOB@example.org", "member").await;
    assert_eq!((again, version), (bob, 6), "the same user");
    assert_eq!(role_of(&acme.read(6).await, bob).as_deref(), Some("member"));
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_member_is_not_registered() {
    let acme = Acme::start().await;
    let (admin, operator) = (acme.caller(Role::Admin), Caller::operator());
    let body = json!({ "email": "new@example.org", "name": "New", "role": "owner" });
    assert_eq!(acme.post("/members", &admin, &body).await.problem(403)["type"], "/problems/forbidden");
    let missing = crate::support::path(uuid::Uuid::now_v7(), "/members");
    acme.service.post(missing).by(&operator).json(&body).send().await.problem(404);
    let twice = json!({ "email": "ADA@example.org", "name": "Ada", "role": "viewer" });
    assert_eq!(acme.post("/members", &operator, &twice).await.problem(409)["type"], "/problems/already-member");
    assert_eq!((acme.count("users").await, acme.count("events").await), (1, 2));
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_requests_add_and_remove_once() {
    let acme = Acme::start().await;
    let admin = acme.caller(Role::Admin);
    let body = json!({ "email": "bob@example.org", "name": "Bob", "role": "viewer" });
    let add = || acme.service.post(acme.path("/members")).by(&admin).header("idempotency-key", "k").json(&body).send();
    let first = add().await.expect(201).json();
    let of_bob = acme.path(&format!("/members/{}", uuid(&first["user_id"])));
    let remove = || acme.service.request(Method::DELETE, &of_bob).by(&admin).header("idempotency-key", "k").send();
    let removed = remove().await.expect(200).json();
    assert_eq!(add().await.expect(201).json(), first, "also after the removal");
    assert_eq!(remove().await.expect(200).json(), removed);
    assert_eq!(acme.count("events").await, 4);
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_additions_all_succeed() {
    let acme = Acme::start().await;
    let emails: Vec<String> = (0..32).map(|number| format!("member{number}@example.org")).collect();
    let mut versions = Vec::new();
    for (_, version) in futures::future::join_all(emails.iter().map(|email| acme.add(email, "member"))).await {
        versions.push(version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (3..=34).collect::<Vec<_>>());
    assert_eq!(acme.read(34).await["members"].as_array().unwrap().len(), 33);
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_owner_removals_leave_one_owner() {
    let acme = Acme::start().await;
    for round in 0..10 {
        let (other, _) = acme.add(&format!("owner{round}@example.org"), "owner").await;
        let operator = Caller::operator();
        let (of_first, of_other) = (format!("/members/{}", acme.owner), format!("/members/{other}"));
        let demotion = json!({ "role": "member" });
        let (first, second) = futures::join!(
            acme.send(Method::DELETE, &of_first, &operator, &Value::Null),
            acme.send(Method::PATCH, &of_other, &operator, &demotion),
        );
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        // Makes Ada the only owner again.
        if first.status == 200 {
            acme.add("ada@example.org", "owner").await;
        }
        assert_eq!(acme.send(Method::DELETE, &of_other, &operator, &Value::Null).await.status, 200);
    }
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_removal_revokes_own_keys() {
    let acme = Acme::start().await;
    let (bob, _) = acme.add("bob@example.org", "admin").await;
    let as_bob = Caller::user(bob, Some(acme.id), Role::Admin);
    assert_eq!(acme.post("/api-keys", &as_bob, &json!({ "name": "Bob's" })).await.status, 201);
    assert_eq!(acme.post("/api-keys", &acme.caller(Role::Admin), &json!({ "name": "shared" })).await.status, 201);
    let of_bob = acme.path(&format!("/members/{bob}"));
    let admin = acme.caller(Role::Admin);
    let remove = || acme.service.request(Method::DELETE, &of_bob).by(&admin).header("idempotency-key", "k").send();
    assert_eq!(remove().await.status, 200);

    acme.add("bob@example.org", "admin").await;
    assert_eq!(acme.post("/api-keys", &as_bob, &json!({ "name": "Bob's new key" })).await.status, 201);
    assert_eq!(remove().await.status, 200);
    let keys = acme.send(Method::GET, "/api-keys", &admin, &Value::Null).await.expect(200).json();
    let mut valid: Vec<_> =
        keys["items"].as_array().unwrap().iter().filter(|key| key["revoked_at"].is_null()).collect();
    valid.sort_by_key(|key| key["name"].as_str());
    let names: Vec<_> = valid.iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Bob's new key", "shared"], "a repeated removal revokes nothing");
    acme.service.close().await;
}
