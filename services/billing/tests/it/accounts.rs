//! Plans, accounts, budgets and invoices through the door.

use axum::http::Method;
use epoch::Timestamp;
use http_kit::{Caller, Role};
use jiff::tz::TimeZone;
use rating::{calendar::month::Month, pricing::plan_aggregate::standard};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Billing, id};

/// A job of an hour and a file of 1 GB for a day, in October 2025; and an account.
pub(crate) async fn customer() -> Billing {
    let billing = Billing::start().await;
    billing.job(id(11), "2025-10-02T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(11), "2025-10-02T09:00:00Z", billing.job_succeeded()).await;
    billing.file(id(1), "2025-10-02T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.file(id(1), "2025-10-03T00:00:00Z", billing.deleted(1_000_000_000)).await;
    billing.caught_up(2, 2).await;
    billing.account_opens().await;
    billing
}

pub(crate) fn plan(price: &str) -> Value {
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

#[tokio::test]
async fn an_invoice_is_drafted_frozen_numbered_and_undone() {
    let billing = customer().await;
    billing.assigned(&plan("0.01")).await;
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
    billing.admin(&void, &json!({ "reason": "" })).await.problem(422);
    billing.admin(&void, &json!({ "reason": "wrong address" })).await.is(200);
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
async fn who_is_pinned_is_untouched_by_a_new_version_and_by_retirement() {
    let billing = customer().await;
    let plan_id = billing.assigned(&plan("0.01")).await;
    billing.admin(&format!("plans/{plan_id}/versions"), &plan("5")).await.is(200);
    billing.admin(&format!("plans/{plan_id}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    assert_eq!(billing.ask("invoices/2025-10", "").await["total"], "39.86");
    let assign = json!({ "plan": plan_id, "plan_version": 2 });
    let refused = billing.admin(&format!("organizations/{}/account/plan", billing.organization), &assign).await;
    assert_eq!(refused.problem(409)["type"], "/problems/plan-retired");
    let unknown = json!({ "plan": Uuid::now_v7(), "plan_version": 1 });
    billing.admin(&format!("organizations/{}/account/plan", billing.organization), &unknown).await.problem(404);
    billing.service.close().await;
}

#[tokio::test]
async fn what_was_assigned_once_is_answered_as_it_was_then() {
    let billing = customer().await;
    let retired = billing.admin("plans", &plan("0.01")).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let key = |path: &str, key: &'static str, body: Value| {
        let path = format!("/api/v1/admin/organizations/{}/account/{path}", billing.organization);
        billing.service.post(path).by(&Caller::operator()).header("idempotency-key", key).json(&body)
    };
    let from = |from: &str| json!({ "plan": retired, "plan_version": 1, "from": from });
    let october = from("2025-10-01T00:00:00Z");
    let first = key("plan", "a", october.clone()).send().await.expect(200);
    billing.admin(&format!("plans/{retired}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    let again = key("plan", "a", october.clone()).send().await.expect(200);
    assert_eq!((again.json(), again.header("etag")), (first.json(), first.header("etag")));
    let other = key("plan", "a", from("2025-10-02T00:00:00Z")).send().await.problem(422);
    assert_eq!(other["type"], "/problems/idempotency-key-reused");
    assert_eq!(key("plan", "b", october).send().await.problem(409)["type"], "/problems/plan-retired");

    let moves = json!({ "time_zone": "Europe/Madrid" });
    let first = key("time-zone", "a", moves.clone()).send().await.expect(200);
    assert_eq!(key("time-zone", "a", moves).send().await.expect(200).json(), first.json());
    billing.service.close().await;
}

#[tokio::test]
async fn a_wrong_plan_is_put_right_after_the_invoice_was_undone() {
    let billing = customer().await;
    billing.assigned(&plan("0.01")).await;
    let right = billing.admin("plans", &plan("0.02")).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let assign = json!({ "plan": right, "plan_version": 1, "from": "2025-10-01T00:00:00Z" });
    let invoice = format!("organizations/{}/invoices/2025-10", billing.organization);
    billing.admin(&format!("{invoice}/finalize"), &json!(null)).await.is(200);
    assert_eq!(billing.ask("invoices/2025-10", "").await["total"], "39.86");
    assert_eq!(billing.account("plan", &assign).await.problem(409)["type"], "/problems/invoiced-already");
    billing.admin(&format!("{invoice}/void"), &json!({ "reason": "the wrong plan" })).await.is(200);
    billing.account("plan", &assign).await.is(200);
    billing.admin(&format!("{invoice}/finalize"), &json!(null)).await.is(200);
    let frozen = billing.ask("invoices/2025-10", "").await;
    assert_eq!((&frozen["status"], &frozen["total"]), (&json!("finalized"), &json!("79.46")));
    billing.service.close().await;
}

#[tokio::test]
async fn a_simulation_tells_winners_and_losers() {
    let billing = customer().await;
    billing.assigned(&plan("0.01")).await;
    let listed = async || {
        let count: i64 =
            sqlx::query_scalar("select count(*) from billing_accounts").fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(listed).await;
    let simulate = |price: &str, organization: Option<Uuid>| json!({ "definition": plan(price), "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z", "organization": organization });
    let cheaper = billing.admin("simulations", &simulate("0.005", None)).await.expect(200).json();
    assert_eq!((&cheaper["so_far"]["effect"], &cheaper["losers"]), (&json!("-19.80"), &json!([])));
    assert_eq!(cheaper["winners"][0]["simulated"], "20.06");
    let dearer = billing.admin("simulations", &simulate("0.02", Some(billing.organization))).await.expect(200).json();
    assert_eq!((&dearer["losers"][0]["difference"], &dearer["so_far"]["effect"]), (&json!("39.60"), &json!("39.60")));
    let nonsense = json!({ "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z" });
    billing.admin("simulations", &nonsense).await.problem(422);
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
        let problem = billing.admin("plans", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    billing.admin("plans", &plan("0.1234567890123456789012345678901234567890")).await.problem(422);
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
    let ledger = billing::invoicing::ledger::Ledger::new(
        epoch_postgres::PgStore::new(billing.service.pool.clone(), epoch::FastPath::new()).0,
        billing::settings::prices(|_| None).unwrap().plan(),
        std::sync::Arc::new(epoch::Timestamp::now),
    );
    let account = ledger.account(billing.organization).await.unwrap();
    let start = ledger.period(&account, ledger.current_month(&account).unwrap()).unwrap().0.start();
    let long_ago = start.as_millis() - 86_400_000 * 30;
    billing.job(id(12), &epoch::Timestamp::from_millis(long_ago).to_string(), billing.job_started(None)).await;
    billing.caught_up(2, 3).await;
    let (store, appender) = epoch_postgres::PgStore::new(billing.service.pool.clone(), epoch::FastPath::new());
    tokio::spawn(appender.run());
    let now = epoch::Timestamp::from_millis(start.as_millis() + 10_000_000);
    let ledger = billing::invoicing::ledger::Ledger::new(
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
    billing::background::budgets::round(&ledger).await.unwrap();
    billing::background::budgets::round(&ledger).await.unwrap();
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

#[tokio::test]
async fn a_change_of_plans_is_previewed_announced_and_seen() {
    let billing = customer().await;
    let team = billing.assigned(&plan("0.01")).await;
    billing.admin(&format!("plans/{team}/versions"), &plan("0.02")).await.is(200);

    // The preview is about the month before this one: a job of 1,000 seconds, then.
    let this_month = Month::of(Timestamp::now(), &TimeZone::UTC).unwrap();
    let last_month = this_month.previous().unwrap().beginning(&TimeZone::UTC).unwrap();
    let later = |seconds: i64| Timestamp::from_millis(last_month.as_millis() + seconds * 1_000).to_string();
    billing.job(id(12), &later(60), billing.job_started(None)).await;
    billing.job(id(12), &later(1_060), billing.job_succeeded()).await;
    billing.caught_up(2, 4).await;
    let second = |more: Value| {
        let mut body = json!({ "plan": team, "plan_version": 2 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let preview = billing.account("plan/preview", &second(json!({}))).await.expect(200).json();
    assert_eq!(
        (&preview["actual"], &preview["simulated"], &preview["difference"]),
        (&json!("11.00"), &json!("22.00"), &json!("11.00"))
    );
    assert_eq!(billing.ask("account", "").await["plans"].as_array().unwrap().len(), 2, "a preview changes nothing");

    // With notice a change lies in the future, and the customer sees both.
    let next_month = this_month.next().unwrap().beginning(&TimeZone::UTC).unwrap().to_string();
    let notice = "from next month on, version 2 applies";
    for silent in [json!({ "from": next_month }), json!({ "from": next_month, "notice": " " })] {
        let refused = billing.account("plan", &second(silent)).await.problem(422);
        assert_eq!(refused["errors"][0]["pointer"], "/notice", "{refused}");
    }
    let past = second(json!({ "from": "2025-10-02T00:00:00Z", "notice": notice }));
    assert_eq!(billing.account("plan", &past).await.problem(422)["errors"][0]["pointer"], "/from");
    billing.account("plan", &second(json!({ "from": next_month, "notice": notice }))).await.is(200);
    let plans = billing.ask("account", "").await["plans"].clone();
    let expected = json!([
        { "from": "0001-01-01T00:00:00.000Z", "plan": standard(), "plan_version": 1, "notice": null },
        { "from": "2025-10-01T00:00:00.000Z", "plan": team, "plan_version": 1, "notice": null },
        { "from": next_month, "plan": team, "plan_version": 2, "notice": notice },
    ]);
    assert_eq!(plans, expected);
    assert_eq!(billing.ask("invoices/2025-10", "").await["total"], "39.86", "what lies before is charged as it was");
    billing.service.close().await;
}

#[tokio::test]
async fn volumes_own_prices_discounts_and_credits_count_in_their_order() {
    let billing = customer().await;
    // A volume account: all seconds are cheaper once there are more than a thousand.
    let mut volume = plan("1");
    volume["charges"][0] = json!({
        "meter": "compute", "unit": "s", "model": "volume",
        "tiers": [{ "up_to": "1000", "unit_price": "0.02" }, { "up_to": null, "unit_price": "0.01" }],
    });
    billing.assigned(&volume).await;
    let october = async || billing.ask("invoices/2025-10", "").await;
    assert_eq!((&october().await["subtotal"], &october().await["total"]), (&json!("36.24"), &json!("39.86")));

    // 24 gigabyte-hours at 2 cents instead of 1.01.
    let own = json!({ "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.02" });
    let price =
        |meter: &str, charge: &Value| json!({ "meter": meter, "charge": charge, "from": "2025-10-01T00:00:00Z" });
    billing.account("prices", &price("compute", &own)).await.problem(422);
    billing.account("prices", &price("network", &own)).await.problem(422);
    billing.account("prices", &price("storage", &own)).await.is(200);
    assert_eq!(october().await["lines"][1]["amount"], "0.48");
    let explained = billing.ask("invoices/2025-10/explanation", "").await;
    assert_eq!(
        (&explained["lines"][0]["own_price"], &explained["lines"][1]["own_price"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(explained["lines"][0]["tiers"], json!([{ "tier": 1, "quantity": "3600", "amount": "36" }]));

    let discount = |percent: &str| json!({ "percent": percent, "reason": "an early customer" });
    assert_eq!(billing.account("discount", &discount("101")).await.problem(422)["errors"][0]["pointer"], "/percent");
    billing.account("discount", &discount("50")).await.is(200);
    let credit = |amount: &str| json!({ "amount": amount, "reason": "for the outage" });
    billing.account("credits", &credit("0.001")).await.problem(422);
    billing.account("credits", &credit("5")).await.is(200);
    let told = |invoice: &Value| {
        let amounts = ["subtotal", "discount", "tax", "total", "credit_applied", "amount_due"];
        amounts.map(|name| invoice[name].as_str().unwrap().to_owned())
    };
    let expected = ["36.48", "18.24", "1.82", "20.06", "5.00", "15.06"];
    assert_eq!(told(&october().await), expected);
    let account = billing.ask("account", "").await;
    assert_eq!((&account["discount_percent"], &account["credit"]), (&json!("50"), &json!("5.00")));

    // Freezing uses the credit up; undoing gives it back.
    let invoice = format!("organizations/{}/invoices/2025-10", billing.organization);
    billing.admin(&format!("{invoice}/finalize"), &json!(null)).await.is(200);
    assert_eq!(
        (told(&october().await), &billing.ask("account", "").await["credit"]),
        (expected.map(Into::into), &json!("0.00"))
    );
    assert_eq!(
        billing.account("prices", &price("storage", &json!(null))).await.problem(409)["type"],
        "/problems/invoiced-already"
    );
    billing.admin(&format!("{invoice}/void"), &json!({ "reason": "a mistake" })).await.is(200);
    assert_eq!(billing.ask("account", "").await["credit"], "5.00");
    billing.service.close().await;
}
