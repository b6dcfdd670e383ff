//! Invalid requests return a problem and change nothing.

use axum::http::Method;
use http_kit::{Caller, Role};
use organization::OrganizationService;
use serde_json::{Value, json};
use service_host::testkit::TestService;
use uuid::Uuid;

use crate::support::{Acme, ORGANIZATIONS, create, path, read};

struct Case {
    name: &'static str,
    method: Method,
    path: String,
    caller: Caller,
    body: String,
    status: u16,
}

fn case(
    name: &'static str,
    (method, path): (Method, String),
    caller: &Caller,
    body: impl ToString,
    status: u16,
) -> Case {
    Case { name, method, path, caller: caller.clone(), body: body.to_string(), status }
}

fn valid_organization() -> Value {
    json!({ "name": "Acme", "owner": { "email": "new@example.org", "name": "New" } })
}

fn valid_member() -> Value {
    json!({ "email": "new@example.org", "name": "New", "role": "viewer" })
}

/// Returns `body` with one value replaced.
fn with(mut body: Value, pointer: &str, value: Value) -> Value {
    *body.pointer_mut(pointer).unwrap() = value;
    body
}

fn invalid_bodies(acme: &Acme) -> Vec<Case> {
    let (operator, owner) = (Caller::operator(), acme.caller(Role::Owner));
    let all = || (Method::POST, ORGANIZATIONS.to_owned());
    let one = || (Method::PATCH, acme.path(""));
    let members = || (Method::POST, acme.path("/members"));
    let member = || (Method::PATCH, acme.path(&format!("/members/{}", acme.owner)));
    let keys = || (Method::POST, acme.path("/api-keys"));
    let long = "x".repeat(201);
    vec![
        case("malformed", all(), &operator, "{", 400),
        case("malformed", members(), &owner, "{\"email\"", 400),
        case("malformed", keys(), &owner, "nope", 400),
        case("malformed", one(), &owner, "", 400),
        case("missing field", all(), &operator, json!({ "name": "Acme" }), 422),
        case(
            "unknown field",
            all(),
            &operator,
            with(valid_organization(), "/owner", json!({ "email": "a@b", "name": "A", "x": 1 })),
            422,
        ),
        case("unknown field", one(), &owner, json!({ "name": "A", "x": 1 }), 422),
        case("unknown field", members(), &owner, json!({ "email": "a@b", "name": "A", "role": "viewer", "x": 1 }), 422),
        case("unknown field", keys(), &owner, json!({ "name": "A", "x": 1 }), 422),
        case("wrong type", all(), &operator, with(valid_organization(), "/name", json!(7)), 422),
        case("wrong type", members(), &owner, with(valid_member(), "/email", json!([])), 422),
        case("wrong type", keys(), &owner, json!({ "name": null }), 422),
        case("empty name", all(), &operator, with(valid_organization(), "/name", json!("  ")), 422),
        case("long name", all(), &operator, with(valid_organization(), "/name", json!(long)), 422),
        case("name with control characters", one(), &owner, json!({ "name": "a\u{0}b" }), 422),
        case("long name", members(), &owner, with(valid_member(), "/name", json!(long)), 422),
        case("long name", keys(), &owner, json!({ "name": long }), 422),
        case("invalid address", all(), &operator, with(valid_organization(), "/owner/email", json!("ada")), 422),
        case("invalid address", members(), &owner, with(valid_member(), "/email", json!("a b@c")), 422),
        case("unknown role", members(), &owner, with(valid_member(), "/role", json!("root")), 422),
        case("platform role", members(), &operator, with(valid_member(), "/role", json!("operator")), 422),
        case("platform role", member(), &operator, json!({ "role": "service" }), 422),
        case("platform role", keys(), &operator, json!({ "name": "A", "role": "operator" }), 422),
        case("too large", all(), &operator, with(valid_organization(), "/name", json!("x".repeat(1024 * 1024))), 413),
        case("too large", keys(), &owner, json!({ "name": "x".repeat(1024 * 1024) }), 413),
    ]
}

fn missing_resources(acme: &Acme, other: Uuid) -> Vec<Case> {
    let (operator, owner) = (Caller::operator(), acme.caller(Role::Owner));
    let (unknown, missing) = (Uuid::now_v7(), Uuid::now_v7());
    let (rename, role, none) = (json!({ "name": "Apex" }), json!({ "role": "viewer" }), "");
    let key = json!({ "name": "CI" });
    let at = |method: Method, organization: Uuid, rest: &str| (method, path(organization, rest));
    let unknown_member = format!("/members/{unknown}");
    let mut cases = vec![
        case("not an id", (Method::GET, format!("{ORGANIZATIONS}/1")), &operator, none, 400),
        case("unknown member", at(Method::PATCH, acme.id, &unknown_member), &owner, &role, 404),
        case("unknown member", at(Method::DELETE, acme.id, &unknown_member), &owner, none, 404),
        case("unknown key", at(Method::DELETE, acme.id, &format!("/api-keys/{unknown}")), &owner, none, 404),
    ];
    // A missing organization for the operator, and another organization for all others.
    for (organization, caller) in [(missing, &operator), (other, &owner)] {
        cases.extend([
            case("inaccessible organization", at(Method::GET, organization, ""), caller, none, 404),
            case("inaccessible organization", at(Method::PATCH, organization, ""), caller, &rename, 404),
            case("inaccessible organization", at(Method::POST, organization, "/members"), caller, valid_member(), 404),
            case("inaccessible organization", at(Method::PATCH, organization, &unknown_member), caller, &role, 404),
            case("inaccessible organization", at(Method::DELETE, organization, &unknown_member), caller, none, 404),
            case("inaccessible organization", at(Method::POST, organization, "/api-keys"), caller, &key, 404),
            case("inaccessible organization", at(Method::GET, organization, "/api-keys"), caller, none, 404),
            case(
                "inaccessible organization",
                at(Method::DELETE, organization, &format!("/api-keys/{unknown}")),
                caller,
                none,
                404,
            ),
        ]);
    }
    cases
}

fn insufficient_roles(acme: &Acme) -> Vec<Case> {
    let (member, admin, owner) = (acme.caller(Role::Member), acme.caller(Role::Admin), acme.caller(Role::Owner));
    let of_owner = acme.path(&format!("/members/{}", acme.owner));
    vec![
        case("a member", (Method::POST, acme.path("/members")), &member, valid_member(), 403),
        case("a member", (Method::PATCH, of_owner.clone()), &member, json!({ "role": "viewer" }), 403),
        case("a member", (Method::DELETE, of_owner.clone()), &member, "", 403),
        case("a member", (Method::POST, acme.path("/api-keys")), &member, json!({ "name": "CI" }), 403),
        case("a member", (Method::GET, acme.path("/api-keys")), &member, "", 403),
        case("an admin", (Method::PATCH, acme.path("")), &admin, json!({ "name": "Apex" }), 403),
        case("an admin", (Method::DELETE, of_owner.clone()), &admin, "", 403),
        case("an owner", (Method::POST, ORGANIZATIONS.to_owned()), &owner, valid_organization(), 403),
        case("the last owner", (Method::DELETE, of_owner.clone()), &owner, "", 409),
        case("the last owner", (Method::PATCH, of_owner), &owner, json!({ "role": "admin" }), 409),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_changes_nothing() {
    let acme = Acme::start().await;
    let other = create(&acme.service, "Other", "other@example.org").await;
    read(&acme.service, other, 2).await;
    let tables = ["events", "commands", "users", "api_keys"];
    let mut before = Vec::new();
    for table in tables {
        before.push(acme.count(table).await);
    }
    for case in
        invalid_bodies(&acme).into_iter().chain(missing_resources(&acme, other)).chain(insufficient_roles(&acme))
    {
        let Case { name, method, path, caller, body, status } = case;
        println!("{name}: {method} {path} by {} {}", caller.role.as_str(), body.chars().take(200).collect::<String>());
        let mut request = acme.service.request(method.clone(), path).by(&caller).body(body);
        if matches!(method, Method::POST | Method::PATCH) {
            request = request.header("content-type", "application/json");
        }
        request.send().await.problem(status);
        for (table, before) in tables.into_iter().zip(&before) {
            assert_eq!(acme.count(table).await, *before, "{table}");
        }
    }
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_headers_change_nothing() {
    let acme = Acme::start().await;
    let owner = acme.caller(Role::Owner);
    let before = acme.count("events").await;
    for (path, caller, body) in [
        (ORGANIZATIONS.to_owned(), &Caller::operator(), valid_organization()),
        (acme.path("/members"), &owner, valid_member()),
        (acme.path("/api-keys"), &owner, json!({ "name": "CI" })),
    ] {
        let unkeyed = acme.service.post(&path).by(caller).json(&body).send_unchanged().await;
        assert_eq!(unkeyed.problem(400)["type"], "/problems/idempotency-key-required");
        acme.service.post(&path).json(&body).send().await.problem(401);
        acme.service.post(&path).by(caller).body(body.to_string()).send().await.problem(415);
    }
    for (method, rest, body) in [
        (Method::PATCH, String::new(), json!({ "name": "Apex" })),
        (Method::POST, "/members".to_owned(), valid_member()),
        (Method::DELETE, format!("/members/{}", acme.owner), Value::Null),
    ] {
        let request = acme.service.request(method, acme.path(&rest)).by(&owner).header("if-match", "\"1\"");
        let request = if body.is_null() { request } else { request.json(&body) };
        assert_eq!(request.send().await.problem(412)["type"], "/problems/stale");
    }
    assert_eq!((acme.count("events").await, acme.count("users").await), (before, 1));
    assert_eq!(acme.count("api_keys").await, 0);
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problem_points_to_invalid_field() {
    let service = TestService::start::<OrganizationService>().await;
    for (pointer, value) in [("/name", json!("")), ("/owner/email", json!("ada")), ("/owner/name", json!("a\nb"))] {
        let body = with(valid_organization(), pointer, value);
        let problem = service.post(ORGANIZATIONS).by(&Caller::operator()).json(&body).send().await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    service.close().await;
}
