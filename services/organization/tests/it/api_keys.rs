//! API key routes, and the key lookup of the gateway.

use axum::http::Method;
use http_kit::{Caller, Role, api_key::ApiKey};
use serde_json::{Value, json};
use service_host::testkit::TestResponse;

use crate::support::{Acme, uuid};

const AUTHENTICATE: &str = "/internal/v1/organization/authenticate";

/// Looks up a key as the gateway does.
async fn authenticate(acme: &Acme, key: &str) -> TestResponse {
    let digest: String = key.parse::<ApiKey>().unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({ "key_sha256": digest });
    acme.service.post(AUTHENTICATE).by(&Caller::service("console")).json(&body).send_unchanged().await
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_authenticates_until_revoked() {
    let acme = Acme::start().await;
    let admin = acme.caller(Role::Admin);
    let created = acme.post("/api-keys", &admin, &json!({ "name": " CI " })).await.expect(201);
    assert_eq!(created.header("cache-control"), "no-store");
    let created_body = created.json();
    let (id, key) = (uuid(&created_body["id"]), created_body["key"].as_str().unwrap());
    assert_eq!((&created_body["name"], &created_body["role"]), (&json!("CI"), &json!("member")));
    assert_eq!(created.header("location"), acme.path(&format!("/api-keys/{id}")));
    assert!(key.parse::<ApiKey>().unwrap().is_genuine(acme.service.secrets()));

    let identity = authenticate(&acme, key).await.expect(200).json();
    assert_eq!(identity, json!({ "organization": acme.id, "key_id": id, "user_id": null, "role": "member" }));

    let listed = acme.send(Method::GET, "/api-keys", &admin, &Value::Null).await.expect(200);
    let text = String::from_utf8(listed.bytes.to_vec()).unwrap();
    assert!(!text.contains(key) && !text.contains(&key[key.len() - 64..]) && !text.contains("sha256"), "{text}");
    assert_eq!(listed.json()["items"][0]["revoked_at"], Value::Null);

    let path = format!("/api-keys/{id}");
    assert_eq!(acme.send(Method::DELETE, &path, &admin, &Value::Null).await.status, 204);
    authenticate(&acme, key).await.problem(404);
    let listed = acme.send(Method::GET, "/api-keys", &admin, &Value::Null).await.expect(200).json();
    assert!(listed["items"][0]["revoked_at"].is_string());
    assert_eq!(acme.send(Method::DELETE, &path, &admin, &Value::Null).await.status, 204);
    let again = acme.send(Method::GET, "/api-keys", &admin, &Value::Null).await.expect(200).json();
    assert_eq!(again, listed, "the second revocation changes nothing");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_returns_same_key() {
    let acme = Acme::start().await;
    let operator = Caller::operator();
    let create = |body: Value| {
        let request = acme.service.post(acme.path("/api-keys")).by(&operator).header("idempotency-key", "k");
        request.json(&body).send()
    };
    let answers = futures::future::join_all((0..8).map(|_| create(json!({ "name": "CI", "role": "owner" })))).await;
    let first = answers[0].json();
    for answer in answers {
        assert_eq!(answer.expect(201).json(), first);
    }
    let reused = create(json!({ "name": "CI", "role": "viewer" })).await.problem(422);
    assert_eq!(reused["type"], "/problems/idempotency-key-reused");
    assert_eq!(acme.count("api_keys").await, 1);
    // The same Idempotency-Key of another caller is another request.
    let admin = acme.caller(Role::Admin);
    let other = acme.service.post(acme.path("/api-keys")).by(&admin).header("idempotency-key", "k");
    let other = other.json(&json!({ "name": "CI" })).send().await.expect(201).json();
    assert_ne!(other["key"], first["key"]);
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_stores_no_key_text() {
    let acme = Acme::start().await;
    let created = acme.post("/api-keys", &Caller::operator(), &json!({ "name": "CI" })).await.expect(201).json();
    let proof = created["key"].as_str().unwrap().rsplit('_').next().unwrap().to_owned();
    let row: String =
        sqlx::query_scalar("select api_keys::text from api_keys").fetch_one(&acme.service.pool).await.unwrap();
    assert!(!row.contains(&proof) && row.contains("CI"), "{row}");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_role_is_limited_by_its_creator() {
    let acme = Acme::start().await;
    let admin = Caller::user(acme.owner, Some(acme.id), Role::Admin);
    let owners = json!({ "name": "CI", "role": "owner" });
    acme.post("/api-keys", &admin, &owners).await.problem(403);
    assert_eq!(acme.count("api_keys").await, 0);

    let admins = acme.post("/api-keys", &admin, &json!({ "name": "CI", "role": "admin" })).await.expect(201).json();
    let identity = authenticate(&acme, admins["key"].as_str().unwrap()).await.expect(200).json();
    assert_eq!((uuid(&identity["user_id"]), &identity["role"]), (acme.owner, &json!("admin")));

    let created = acme.post("/api-keys", &Caller::operator(), &owners).await.expect(201).json();
    let path = format!("/api-keys/{}", uuid(&created["id"]));
    acme.send(Method::DELETE, &path, &admin, &Value::Null).await.problem(403);
    assert_eq!(authenticate(&acme, created["key"].as_str().unwrap()).await.status, 200);
    assert_eq!(acme.send(Method::DELETE, &path, &acme.caller(Role::Owner), &Value::Null).await.status, 204);
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_pages_through_all_keys() {
    let acme = Acme::start().await;
    let mut created = Vec::new();
    for number in 0..5 {
        let body = json!({ "name": format!("CI {number}") });
        created.push(uuid(&acme.post("/api-keys", &Caller::operator(), &body).await.expect(201).json()["id"]));
    }
    // Two keys of the same millisecond.
    sqlx::query("update api_keys set created_at = 7 where id = any($1)")
        .bind(&created[..2])
        .execute(&acme.service.pool)
        .await
        .unwrap();
    let (mut listed_ids, mut rest) = (Vec::new(), "/api-keys?limit=2".to_owned());
    loop {
        let page = acme.send(Method::GET, &rest, &acme.caller(Role::Admin), &Value::Null).await.expect(200).json();
        listed_ids.extend(page["items"].as_array().unwrap().iter().map(|item| uuid(&item["id"])));
        let Some(next) = page["next"].as_str() else { break };
        rest = format!("/api-keys?limit=2&cursor={next}");
    }
    let mut sorted = listed_ids.clone();
    sorted.sort_unstable();
    created.sort_unstable();
    assert_eq!(sorted, created, "each key is listed once");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authenticate_accepts_only_services() {
    let acme = Acme::start().await;
    let request =
        |caller: Caller, body: Value| acme.service.post(AUTHENTICATE).by(&caller).json(&body).send_unchanged();
    let unknown = json!({ "key_sha256": "00".repeat(32) });
    request(Caller::service("console"), unknown.clone()).await.problem(404);
    request(Caller::operator(), unknown.clone()).await.problem(403);
    request(acme.caller(Role::Owner), unknown.clone()).await.problem(403);
    acme.service.post(AUTHENTICATE).json(&unknown).send_unchanged().await.problem(401);
    for wrong in
        [json!({ "key_sha256": "00" }), json!({ "key_sha256": "zz".repeat(32) }), json!({}), json!({ "key_sha256": 7 })]
    {
        request(Caller::service("console"), wrong).await.problem(422);
    }
    acme.service.close().await;
}
