//! Organization routes.

use axum::http::Method;
use http_kit::{Caller, Role};
use organization::OrganizationService;
use serde_json::json;
use service_host::testkit::TestService;
use uuid::Uuid;

use crate::support::{Acme, ORGANIZATIONS, create, key, read, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn organization_is_created_read_and_renamed() {
    let service = TestService::start::<OrganizationService>().await;
    let body = json!({ "name": "  Acme ", "owner": { "email": "Ada@Example.org", "name": "Ada Lovelace" } });
    let created = service.post(ORGANIZATIONS).by(&Caller::operator()).json(&body).send().await.expect(201);
    let id = uuid(&created.json()["id"]);
    assert_eq!(created.json(), json!({ "id": id, "version": 2 }));
    assert_eq!(created.header("location"), format!("{ORGANIZATIONS}/{id}"));
    assert_eq!(created.header("etag"), "\"2\"");

    let path = format!("{ORGANIZATIONS}/{id}?min_version=2");
    let answer = service.get(&path).by(&key(id, Role::Viewer)).send().await.expect(200);
    assert_eq!(answer.header("etag"), "\"2\"");
    let view = answer.json();
    let at = view["created_at"].as_str().unwrap();
    assert!(at.len() == 24 && at.ends_with('Z') && at.parse::<epoch::Timestamp>().is_ok(), "{at}");
    let owner = uuid(&view["members"][0]["user_id"]);
    let ada = json!({ "user_id": owner, "email": "Ada@Example.org", "name": "Ada Lovelace", "role": "owner" });
    let expected =
        json!({ "id": id, "name": "Acme", "storage_bytes": 0, "created_at": at, "version": 2, "members": [ada] });
    assert_eq!(view, expected);

    let rename = service.request(Method::PATCH, format!("{ORGANIZATIONS}/{id}")).by(&key(id, Role::Owner));
    let renamed = rename.header("if-match", "\"2\"").json(&json!({ "name": "Apex" })).send().await.expect(200);
    assert_eq!(renamed.json(), json!({ "id": id, "version": 3 }));
    let path = format!("{ORGANIZATIONS}/{id}?min_version=3");
    let view = service.get(&path).by(&key(id, Role::Viewer)).send().await.expect(200).json();
    assert_eq!((&view["name"], &view["version"]), (&json!("Apex"), &json!(3)));
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_creation_returns_first_organization() {
    let acme = Acme::start().await;
    let operator = Caller::operator();
    let body = json!({ "name": "Once", "owner": { "email": "once@example.org", "name": "Once" } });
    let attempts = (0..8)
        .map(|_| acme.service.post(ORGANIZATIONS).by(&operator).header("idempotency-key", "once").json(&body).send());
    let answers = futures::future::join_all(attempts).await;
    let first = answers[0].json();
    for answer in answers {
        let answer = answer.expect(201);
        assert_eq!(answer.json(), first);
        assert_eq!(answer.header("location"), format!("{ORGANIZATIONS}/{}", uuid(&first["id"])));
    }
    assert_eq!(acme.count("users").await, 2, "Ada and the new owner");
    assert_eq!(acme.count("events").await, 4);

    let other = json!({ "name": "Twice", "owner": { "email": "twice@example.org", "name": "Twice" } });
    let reused = acme.service.post(ORGANIZATIONS).by(&operator).header("idempotency-key", "once").json(&other);
    assert_eq!(reused.send().await.problem(422)["type"], "/problems/idempotency-key-reused");
    assert_eq!(acme.count("users").await, 2, "the rejected command registered no user");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn address_identifies_one_user_in_any_case() {
    let service = TestService::start::<OrganizationService>().await;
    let spellings = ["ada@example.org", "Ada@example.org", "ADA@EXAMPLE.ORG", "ada@Example.Org"];
    let created = spellings.map(|email| create(&service, "Acme", email));
    let ids = futures::future::join_all(created).await;
    let mut owners = Vec::new();
    for id in ids {
        let view = read(&service, id, 2).await;
        owners.push(uuid(&view["members"][0]["user_id"]));
    }
    owners.dedup();
    assert_eq!(owners.len(), 1, "{owners:?}");
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_all_to_operator_and_own_to_others() {
    let service = TestService::start::<OrganizationService>().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(create(&service, &format!("Acme {number}"), "ada@example.org").await);
    }
    for id in &ids {
        read(&service, *id, 2).await;
    }
    let (mut listed_ids, mut path) = (Vec::new(), format!("{ORGANIZATIONS}?limit=2"));
    loop {
        let page = service.get(&path).by(&Caller::operator()).send().await.expect(200).json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        listed_ids.extend(items.iter().map(|item| uuid(&item["id"])));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{ORGANIZATIONS}?limit=2&cursor={next}");
    }
    ids.reverse();
    assert_eq!(listed_ids, ids, "newest first");

    let own = service.get(ORGANIZATIONS).by(&key(ids[2], Role::Viewer)).send().await.expect(200).json();
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    assert_eq!(uuid(&own["items"][0]["id"]), ids[2]);
    let without_organization = Caller::user(Uuid::now_v7(), None, Role::Owner);
    let none = service.get(ORGANIZATIONS).by(&without_organization).send().await.expect(200).json();
    assert_eq!(none, json!({ "items": [] }));
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreached_min_version_returns_503() {
    let acme = Acme::start().await;
    let late = acme.service.get(acme.path("?min_version=3")).by(&acme.caller(Role::Viewer)).send().await;
    assert_eq!(late.header("retry-after"), "1");
    assert_eq!(late.problem(503)["type"], "/problems/version-not-reached");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_document_lists_public_routes() {
    let acme = Acme::start().await;
    let document = acme.service.get("/internal/v1/organization/openapi.json").by(&Caller::service("console"));
    let document = document.send().await.expect(200).json();
    assert_eq!(document["info"]["title"], "Catacloud organization");
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let of_one = "/api/v1/organizations/{org}";
    let expected = [
        ORGANIZATIONS.to_owned(),
        of_one.to_owned(),
        format!("{of_one}/api-keys"),
        format!("{of_one}/api-keys/{{key}}"),
        format!("{of_one}/members"),
        format!("{of_one}/members/{{user}}"),
    ];
    assert_eq!(paths, expected.iter().collect::<Vec<_>>());
    acme.service.close().await;
}
