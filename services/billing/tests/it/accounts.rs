//! Plans, accounts, budgets and invoices through the door.

use axum::http::Method;
use contracts::organization::{OrganizationCreated, OrganizationEvent};
use serde_json::{Value, json};
use service_kit::{Caller, Role};
use uuid::Uuid;

use crate::support::{Billing, at, id};

/// A job of an hour and a file of 1 GB for a day, in October 2025; and an account.
async fn customer() -> Billing {
    let billing = Billing::start().await;
    let created: OrganizationEvent = OrganizationCreated { name: "Acme".into() }.into();
    let organization = billing.organization;
    billing.service.publish("organization", organization, organization, at("2025-10-01T00:00:00Z"), &[created]).await;
    billing.job(id(11), "2025-10-02T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(11), "2025-10-02T09:00:00Z", billing.job_succeeded()).await;
    billing.file(id(1), "2025-10-02T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.file(id(1), "2025-10-03T00:00:00Z", billing.deleted(1_000_000_000)).await;
    billing.caught_up(2, 2).await;
    let opened = async || {
        let answer = billing.service.get(billing.path("account", "")).by(&billing.viewer).send().await;
        (answer.status == 200).then_some(())
    };
    billing.service.eventually(opened).await;
    billing
}

async fn admin(billing: &Billing, path: &str, body: &Value) -> service_kit::testkit::Answer {
    billing.service.post(format!("/api/v1/admin/{path}")).by(&Caller::operator()).json(body).send().await
}

fn plan(price: &str) -> Value {
    json!({
        "name": "Team <b>",
        "currency": "EUR",
        "charges": [
            { "meter": "compute", "unit": "s", "model": "flat", "unit_price": price },
            { "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.0101" },
        ],
        "tax_percent": "10",
    })
}

async fn assigned(billing: &Billing, price: &str) -> String {
    let plan = admin(billing, "plans", &plan(price)).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let assign = json!({ "plan": plan, "plan_version": 1, "from": "2025-10-01T00:00:00Z" });
    admin(billing, &format!("organizations/{}/account/plan", billing.organization), &assign).await.is(200);
    plan
}

#[tokio::test]
async fn an_invoice_is_drafted_frozen_numbered_and_undone() {
    let billing = customer().await;
    assigned(&billing, "0.01").await;
    let october = |query: &str| billing.path("invoices/2025-10", query);
    let draft = billing.service.get(october("")).by(&billing.viewer).send().await.expect(200).json();
    assert_eq!((&draft["status"], &draft["number"], &draft["total"]), (&json!("draft"), &Value::Null, &json!("39.86")));
    assert_eq!(
        (&draft["subtotal"], &draft["tax"], &draft["rounding"]),
        (&json!("36.24"), &json!("3.62"), &json!("-0.0024"))
    );

    let finalize = format!("organizations/{}/invoices/2025-10/finalize", billing.organization);
    let forbidden = billing.service.post(format!("/api/v1/admin/{finalize}")).by(&billing.viewer);
    forbidden.send().await.problem(403);
    let key = |key: &'static str| {
        let request = billing.service.post(format!("/api/v1/admin/{finalize}")).by(&Caller::operator());
        request.header("idempotency-key", key)
    };
    key("a").send().await.is(200);
    key("a").send().await.is(200);
    key("b").send().await.problem(409);
    let frozen = billing.service.get(october("")).by(&billing.viewer).send().await.expect(200).json();
    assert_eq!(
        (&frozen["status"], &frozen["number"], &frozen["total"]),
        (&json!("finalized"), &json!(1), &json!("39.86"))
    );

    let csv = billing.service.get(october("format=csv")).by(&billing.viewer).send().await.expect(200);
    assert!(String::from_utf8_lossy(&csv.bytes).contains("1,2025-10,usage,compute,"));
    let html = billing.service.get(october("format=html")).by(&billing.viewer).send().await.expect(200);
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");

    let void = format!("organizations/{}/invoices/2025-10/void", billing.organization);
    admin(&billing, &void, &json!({ "reason": "" })).await.problem(422);
    admin(&billing, &void, &json!({ "reason": "wrong address" })).await.is(200);
    // The next one has the number after the credit note's, which is 2: what was refused took none.
    key("c").send().await.is(200);
    let listed = async || {
        let list = billing.ask("invoices", "").await;
        let told =
            list["items"].as_array().unwrap().iter().map(|item| (item["number"].clone(), item["credit_note"].clone()));
        let mut told: Vec<_> = told.map(|(number, credit)| (number.as_i64(), credit.as_i64())).collect();
        told.sort_unstable();
        (told.len() == 2).then_some(told)
    };
    assert_eq!(billing.service.eventually(listed).await, [(Some(1), Some(2)), (Some(3), None)]);
    billing.service.close().await;
}

#[tokio::test]
async fn an_amount_is_explained_to_its_events() {
    let billing = customer().await;
    assigned(&billing, "0.01").await;
    let said = billing.ask("invoices/2025-10/explanation", "date=2025-10-02").await;
    assert_eq!(said["lines"][1]["tiers"], json!([{ "tier": 0, "quantity": "24", "amount": "0.2424" }]));
    assert_eq!(said["intervals"]["stored"][0]["byte_ms"], "86400000000000000");
    assert_eq!(said["intervals"]["ran"][0]["started_at"], "2025-10-02T08:00:00.000Z");
    assert_eq!(said["days"][1]["run_ms"], "3600000");
    let wrong =
        billing.service.get(billing.path("invoices/2025-10/explanation", "date=2025-11-02")).by(&billing.viewer);
    wrong.send().await.problem(422);
    billing.service.close().await;
}

#[tokio::test]
async fn who_is_pinned_is_untouched_by_a_new_version_and_by_retirement() {
    let billing = customer().await;
    let plan_id = assigned(&billing, "0.01").await;
    admin(&billing, &format!("plans/{plan_id}/versions"), &plan("5")).await.is(200);
    admin(&billing, &format!("plans/{plan_id}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    assert_eq!(billing.ask("invoices/2025-10", "").await["total"], "39.86");
    let assign = json!({ "plan": plan_id, "plan_version": 2 });
    let refused = admin(&billing, &format!("organizations/{}/account/plan", billing.organization), &assign).await;
    assert_eq!(refused.problem(409)["type"], "/problems/plan-retired");
    let unknown = json!({ "plan": Uuid::now_v7(), "plan_version": 1 });
    admin(&billing, &format!("organizations/{}/account/plan", billing.organization), &unknown).await.problem(404);
    billing.service.close().await;
}

#[tokio::test]
async fn a_simulation_tells_winners_and_losers() {
    let billing = customer().await;
    assigned(&billing, "0.01").await;
    let listed = async || {
        let count: i64 =
            sqlx::query_scalar("select count(*) from billing_accounts").fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(listed).await;
    let simulate = |price: &str, organization: Option<Uuid>| json!({ "definition": plan(price), "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z", "organization": organization });
    let cheaper = admin(&billing, "simulations", &simulate("0.005", None)).await.expect(200).json();
    assert_eq!((&cheaper["total_effect"], &cheaper["losers"]), (&json!("-19.80"), &json!([])));
    assert_eq!(cheaper["winners"][0]["simulated"], "20.06");
    let dearer = admin(&billing, "simulations", &simulate("0.02", Some(billing.organization))).await.expect(200).json();
    assert_eq!((&dearer["losers"][0]["difference"], &dearer["total_effect"]), (&json!("39.60"), &json!("39.60")));
    let nonsense = json!({ "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z" });
    admin(&billing, "simulations", &nonsense).await.problem(422);
    billing.service.close().await;
}

#[tokio::test]
async fn bad_plans_are_refused_with_the_place() {
    let billing = Billing::start().await;
    let cases = [
        (json!({ "currency": "EURO" }), "/currency"),
        (json!({ "charges": [{ "meter": "storage", "unit": "s", "model": "flat" }] }), "/charges/0/unit"),
        (json!({ "tax_percent": "200" }), "/tax_percent"),
        (json!({ "split": "half" }), "/split"),
    ];
    for (change, pointer) in cases {
        let mut body = plan("1");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let problem = admin(&billing, "plans", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    admin(&billing, "plans", &plan("0.1234567890123456789012345678901234567890")).await.problem(422);
    let member = Caller::key(Uuid::now_v7(), billing.organization, Role::Owner);
    billing.service.post("/api/v1/admin/plans").by(&member).json(&plan("1")).send().await.problem(403);
    billing.service.get("/api/v1/admin/plans").by(&member).send().await.problem(403);
    billing.service.close().await;
}

#[tokio::test]
async fn nobody_sees_the_invoices_of_others() {
    let billing = customer().await;
    let other = Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Owner);
    for what in ["account", "budget", "invoices", "invoices/2025-10", "invoices/2025-10/explanation"] {
        billing.service.get(billing.path(what, "")).by(&other).send().await.problem(404);
        billing.service.get(billing.path(what, "")).by(&billing.viewer).send().await.is(200);
    }
    billing.service.get(billing.path("invoices/2025-13", "")).by(&billing.viewer).send().await.problem(422);
    billing.service.close().await;
}

#[tokio::test]
async fn a_used_up_budget_stops_new_jobs_if_it_should() {
    let billing = customer().await;
    let admin = Caller::key(Uuid::now_v7(), billing.organization, Role::Admin);
    let set = |body: Value| billing.service.request(Method::PUT, billing.path("budget", "")).by(&admin).json(&body);
    let viewer = billing.service.request(Method::PUT, billing.path("budget", "")).by(&billing.viewer);
    viewer.json(&json!({ "amount": "1" })).send().await.problem(403);
    set(json!({ "amount": "0.001" })).send().await.problem(422);
    set(json!({ "amount": "0.50", "thresholds": [50], "hard_stop": true })).send().await.is(200);
    let standing = format!("/internal/v1/billing/organizations/{}/standing", billing.organization);
    billing.service.get(&standing).by(&billing.viewer).send().await.problem(403);
    let allowed = async || {
        let job = Caller::service("job");
        billing.service.get(&standing).by(&job).send().await.expect(200).json()["jobs_allowed"].clone()
    };
    assert_eq!(allowed().await, true);

    // A job that has run since the month began has cost more than the budget, at the installation's prices, after 10,000 s.
    let ledger = billing::ledger::Ledger::new(
        epoch_postgres::PgStore::new(billing.service.pool.clone(), epoch::local::LocalBus::new()).0,
        billing::settings::prices(|_| None).unwrap().plan(),
        std::sync::Arc::new(epoch::Timestamp::now),
    );
    let account = ledger.account(billing.organization).await.unwrap();
    let start = ledger.period(&account, ledger.current_month(&account).unwrap()).unwrap().0.start();
    let long_ago = start.as_millis() - 86_400_000 * 30;
    billing.job(id(12), &epoch::Timestamp::from_millis(long_ago).to_string(), billing.job_started(None)).await;
    billing.caught_up(2, 3).await;
    let (store, appender) = epoch_postgres::PgStore::new(billing.service.pool.clone(), epoch::local::LocalBus::new());
    tokio::spawn(appender.run());
    let now = epoch::Timestamp::from_millis(start.as_millis() + 10_000_000);
    let ledger = billing::ledger::Ledger::new(
        store,
        billing::settings::prices(|_| None).unwrap().plan(),
        std::sync::Arc::new(move || now),
    );
    let listed = async || {
        let count = "select count(*) from billing_accounts where has_budget";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(listed).await;
    billing::budgets::round(&ledger).await.unwrap();
    billing::budgets::round(&ledger).await.unwrap();
    let budget = billing.ask("budget", "").await;
    let mut alerts: Vec<_> = budget["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| format!("{} {}", alert["kind"], alert["threshold"]))
        .collect();
    alerts.sort_unstable();
    assert_eq!(alerts, ["\"actual\" 100", "\"actual\" 50", "\"forecast\" 100", "\"forecast\" 50"]);
    assert_eq!(allowed().await, false);
    let metered = billing.ask("account", "").await["metered"].clone();
    assert!(metered["run_ms"].as_str().unwrap().parse::<i128>().unwrap() > 3_600_000, "{metered}");
    billing.service.close().await;
}
