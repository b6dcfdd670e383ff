//! Accounts through the admin API: plan assignments, price overrides, discounts and credits.

use epoch::Timestamp;
use http_kit::Caller;
use jiff::tz::TimeZone;
use rating::{calendar::month::Month, pricing::plan_aggregate::standard};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{id, october_customer, team_plan};

#[tokio::test]
async fn pinned_plan_survives_new_version_and_retirement() {
    let billing = october_customer().await;
    let plan_id = billing.assign_plan(&team_plan("0.01")).await;
    billing.post_admin(&format!("plans/{plan_id}/versions"), &team_plan("5")).await.is(200);
    billing.post_admin(&format!("plans/{plan_id}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    assert_eq!(billing.get_json("invoices/2025-10", "").await["total"], "39.86");
    let assign = json!({ "plan": plan_id, "plan_version": 2 });
    let refused = billing.post_account("plan", &assign).await;
    assert_eq!(refused.problem(409)["type"], "/problems/plan-retired");
    let unknown = json!({ "plan": Uuid::now_v7(), "plan_version": 1 });
    billing.post_account("plan", &unknown).await.problem(404);
    billing.service.close().await;
}

#[tokio::test]
async fn repeated_assignment_returns_first_result() {
    let billing = october_customer().await;
    let retired = billing.publish_plan(&team_plan("0.01")).await;
    let request = |path: &str, key: &'static str, body: Value| {
        let path = format!("/api/v1/admin/organizations/{}/account/{path}", billing.organization);
        billing.service.post(path).by(&Caller::operator()).header("idempotency-key", key).json(&body)
    };
    let from = |from: &str| json!({ "plan": retired, "plan_version": 1, "from": from });
    let october = from("2025-10-01T00:00:00Z");
    let first = request("plan", "a", october.clone()).send().await.expect(200);
    billing.post_admin(&format!("plans/{retired}/retire"), &json!({ "reason": "sold out" })).await.is(200);
    let again = request("plan", "a", october.clone()).send().await.expect(200);
    assert_eq!((again.json(), again.header("etag")), (first.json(), first.header("etag")));
    let other = request("plan", "a", from("2025-10-02T00:00:00Z")).send().await.problem(422);
    assert_eq!(other["type"], "/problems/idempotency-key-reused");
    assert_eq!(request("plan", "b", october).send().await.problem(409)["type"], "/problems/plan-retired");

    let moves = json!({ "time_zone": "Europe/Madrid" });
    let first = request("time-zone", "a", moves.clone()).send().await.expect(200);
    assert_eq!(request("time-zone", "a", moves).send().await.expect(200).json(), first.json());
    billing.service.close().await;
}

#[tokio::test]
async fn plan_change_is_previewed_announced_and_listed() {
    let billing = october_customer().await;
    let team = billing.assign_plan(&team_plan("0.01")).await;
    billing.post_admin(&format!("plans/{team}/versions"), &team_plan("0.02")).await.is(200);

    // The preview covers the previous month, in which a job runs for 1,000 seconds.
    let this_month = Month::of(Timestamp::now(), &TimeZone::UTC).unwrap();
    let last_month = this_month.previous().unwrap().beginning(&TimeZone::UTC).unwrap();
    let later = |seconds: i64| Timestamp::from_millis(last_month.as_millis() + seconds * 1_000).to_string();
    billing.job(id(12), &later(60), billing.job_started(None)).await;
    billing.job(id(12), &later(1_060), billing.job_succeeded()).await;
    billing.wait_until_applied(2, 4).await;
    let second = |more: Value| {
        let mut body = json!({ "plan": team, "plan_version": 2 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let preview = billing.post_account("plan/preview", &second(json!({}))).await.expect(200).json();
    assert_eq!(
        (&preview["actual"], &preview["simulated"], &preview["difference"]),
        (&json!("11.00"), &json!("22.00"), &json!("11.00"))
    );
    assert_eq!(
        billing.get_json("account", "").await["plans"].as_array().unwrap().len(),
        2,
        "a preview changes nothing"
    );

    // A change with notice lies in the future, and the account lists both plans.
    let next_month = this_month.next().unwrap().beginning(&TimeZone::UTC).unwrap().to_string();
    let notice = "from next month on, version 2 applies";
    for without_notice in [json!({ "from": next_month }), json!({ "from": next_month, "notice": " " })] {
        let refused = billing.post_account("plan", &second(without_notice)).await.problem(422);
        assert_eq!(refused["errors"][0]["pointer"], "/notice", "{refused}");
    }
    let past = second(json!({ "from": "2025-10-02T00:00:00Z", "notice": notice }));
    assert_eq!(billing.post_account("plan", &past).await.problem(422)["errors"][0]["pointer"], "/from");
    billing.post_account("plan", &second(json!({ "from": next_month, "notice": notice }))).await.is(200);
    let plans = billing.get_json("account", "").await["plans"].clone();
    let expected = json!([
        { "from": "0001-01-01T00:00:00.000Z", "plan": standard(), "plan_version": 1, "notice": null },
        { "from": "2025-10-01T00:00:00.000Z", "plan": team, "plan_version": 1, "notice": null },
        { "from": next_month, "plan": team, "plan_version": 2, "notice": notice },
    ]);
    assert_eq!(plans, expected);
    assert_eq!(billing.get_json("invoices/2025-10", "").await["total"], "39.86", "earlier usage keeps its price");
    billing.service.close().await;
}

#[tokio::test]
async fn volume_override_discount_and_credit_apply_in_order() {
    let billing = october_customer().await;
    // Volume pricing: above 1,000 seconds, every second costs the lower price.
    let mut volume = team_plan("1");
    volume["charges"][0] = json!({
        "meter": "compute", "unit": "s", "model": "volume",
        "tiers": [{ "up_to": "1000", "unit_price": "0.02" }, { "up_to": null, "unit_price": "0.01" }],
    });
    billing.assign_plan(&volume).await;
    let october = async || billing.get_json("invoices/2025-10", "").await;
    assert_eq!((&october().await["subtotal"], &october().await["total"]), (&json!("36.24"), &json!("39.86")));

    // 24 GB-hours at 2 cents instead of 1.01.
    let price_override = json!({ "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.02" });
    let price =
        |meter: &str, charge: &Value| json!({ "meter": meter, "charge": charge, "from": "2025-10-01T00:00:00Z" });
    billing.post_account("prices", &price("compute", &price_override)).await.problem(422);
    billing.post_account("prices", &price("network", &price_override)).await.problem(422);
    billing.post_account("prices", &price("storage", &price_override)).await.is(200);
    assert_eq!(october().await["lines"][1]["amount"], "0.48");
    let explained = billing.get_json("invoices/2025-10/explanation", "").await;
    assert_eq!(
        (&explained["lines"][0]["own_price"], &explained["lines"][1]["own_price"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(explained["lines"][0]["tiers"], json!([{ "tier": 1, "quantity": "3600", "amount": "36" }]));

    let discount = |percent: &str| json!({ "percent": percent, "reason": "an early customer" });
    assert_eq!(
        billing.post_account("discount", &discount("101")).await.problem(422)["errors"][0]["pointer"],
        "/percent"
    );
    billing.post_account("discount", &discount("50")).await.is(200);
    let credit = |amount: &str| json!({ "amount": amount, "reason": "for the outage" });
    billing.post_account("credits", &credit("0.001")).await.problem(422);
    billing.post_account("credits", &credit("5")).await.is(200);
    let amounts = |invoice: &Value| {
        let fields = ["subtotal", "discount", "tax", "total", "credit_applied", "amount_due"];
        fields.map(|name| invoice[name].as_str().unwrap().to_owned())
    };
    let expected = ["36.48", "18.24", "1.82", "20.06", "5.00", "15.06"];
    assert_eq!(amounts(&october().await), expected);
    let account = billing.get_json("account", "").await;
    assert_eq!((&account["discount_percent"], &account["credit"]), (&json!("50"), &json!("5.00")));

    // Finalizing uses the credit up, and voiding returns it.
    billing.finalize_invoice("2025-10").await;
    assert_eq!(
        (amounts(&october().await), &billing.get_json("account", "").await["credit"]),
        (expected.map(Into::into), &json!("0.00"))
    );
    assert_eq!(
        billing.post_account("prices", &price("storage", &json!(null))).await.problem(409)["type"],
        "/problems/invoiced-already"
    );
    billing.void_invoice("2025-10", "a mistake").await;
    assert_eq!(billing.get_json("account", "").await["credit"], "5.00");
    billing.service.close().await;
}
