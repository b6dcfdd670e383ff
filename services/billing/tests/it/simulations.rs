//! Simulations: costs of accounts under another plan, month by month.

use contracts::job::{self, JobEvent, JobSucceeded};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Billing, at, id, job_started, october_customer, team_plan};

/// A plan that charges compute time only, at this price of a second.
fn compute_plan(currency: &str, price: &str) -> Value {
    let compute = json!({ "meter": "compute", "unit": "s", "model": "flat", "unit_price": price });
    json!({ "name": "Seconds", "currency": currency, "charges": [compute] })
}

/// Opens an account with a plan as an operator.
async fn open_account(billing: &Billing, organization: Uuid, currency: &str, time_zone: &str, plan: (&str, u32)) {
    let body = json!({ "currency": currency, "time_zone": time_zone, "plan": plan.0, "plan_version": plan.1 });
    billing.post_admin(&format!("organizations/{organization}/account"), &body).await.is(200);
}

/// Publishes the start and the end of a job of the organization.
async fn run_job(billing: &Billing, organization: Uuid, from: &str, to: &str) {
    let started: JobEvent = job_started(organization, None).into();
    let succeeded: JobEvent = JobSucceeded { organization_id: organization, exit_code: 0 }.into();
    let (job, service) = (Uuid::now_v7(), &billing.service);
    for (when, event) in [(from, started), (to, succeeded)] {
        service.publish(job::AGGREGATE, job, organization, at(when), &[event]).await;
    }
}

async fn simulate(billing: &Billing, from: &str, to: &str, more: &Value) -> Value {
    let mut body = json!({ "from": from, "to": to });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    billing.post_admin("simulations", &body).await.expect(200).json()
}

#[tokio::test]
async fn simulation_keeps_price_overrides_and_discounts() {
    let billing = october_customer().await;
    let team = billing.assign_plan(&team_plan("0.01")).await;
    let price_override = json!({ "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.02" });
    let price = json!({ "meter": "storage", "charge": price_override, "from": "2025-10-02T12:00:00Z" });
    billing.post_account("prices", &price).await.is(200);
    billing.post_account("discount", &json!({ "percent": "10", "reason": "r" })).await.is(200);
    let october = async |plan: Value| {
        let mut more = plan;
        more["organization"] = json!(billing.organization);
        simulate(&billing, "2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z", &more).await
    };
    // The account's current plan has no effect: 36.00 + 0.12 + 0.24, minus 10 % discount, plus 10 % tax.
    let same = october(json!({ "plan": team, "plan_version": 1 })).await;
    assert_eq!(
        same["so_far"],
        json!({
            "actual": "35.99", "simulated": "35.99", "effect": "0.00", "winners": 0, "losers": 0, "unchanged": 1, "skipped": 0,
        })
    );
    assert_eq!(billing.get_json("invoices/2025-10", "").await["total"], "35.99");
    // Storage at 1 EUR per GB-hour would cost 12 EUR: the half day before the price override applies.
    let mut dear = team_plan("0.01");
    dear["charges"][1]["unit_price"] = json!("1");
    let dear = october(json!({ "definition": dear })).await;
    assert_eq!(dear["losers"][0]["simulated"], "47.76");
    billing.service.close().await;
}

#[tokio::test]
async fn simulation_rates_each_account_month_separately() {
    let billing = Billing::start().await;
    let organization = billing.organization;
    let flat = billing.publish_plan(&compute_plan("EUR", "0.01")).await;
    open_account(&billing, organization, "EUR", "Europe/Madrid", (&flat, 1)).await;
    run_job(&billing, organization, "2025-10-10T10:00:00Z", "2025-10-10T10:25:00Z").await;
    // The run crosses midnight in Madrid: 600 seconds in October and 600 in November.
    run_job(&billing, organization, "2025-10-31T22:50:00Z", "2025-10-31T23:10:00Z").await;
    run_job(&billing, organization, "2025-11-10T10:00:00Z", "2025-11-10T10:11:40Z").await;
    billing.wait_until_applied(0, 6).await;
    billing.wait_for_listed_accounts(1).await;

    let mut free = compute_plan("EUR", "0.01");
    free["charges"][0]["free"] = json!("1000");
    free["minimum"] = json!("5");
    let free = json!({ "definition": free });
    // 2,100 and 1,300 seconds, of which 1,000 are free in each month. The second month is below the minimum.
    let both = simulate(&billing, "2025-09-30T22:00:00Z", "2025-11-30T23:00:00Z", &free).await;
    assert_eq!((&both["winners"][0]["actual"], &both["winners"][0]["simulated"]), (&json!("34.00"), &json!("16.00")));
    // A partial month is rated as a month: 600 seconds in each.
    let parts = simulate(&billing, "2025-10-15T00:00:00Z", "2025-11-05T00:00:00Z", &free).await;
    assert_eq!((&parts["winners"][0]["actual"], &parts["winners"][0]["simulated"]), (&json!("12.00"), &json!("10.00")));
    billing.service.close().await;
}

#[tokio::test]
async fn simulation_pages_sum_to_all_accounts() {
    let billing = Billing::start().await;
    let euros = billing.publish_plan(&compute_plan("EUR", "0.01")).await;
    let versions = format!("plans/{}/versions", euros);
    billing.post_admin(&versions, &compute_plan("EUR", "0.02")).await.is(200);
    let dear = billing.publish_plan(&compute_plan("EUR", "0.05")).await;
    let yen = billing.publish_plan(&compute_plan("JPY", "1")).await;
    let accounts: [(&str, (&str, u32)); 4] =
        [("EUR", (&euros, 1)), ("JPY", (&yen, 1)), ("EUR", (&dear, 1)), ("EUR", (&euros, 2))];
    for (number, (currency, plan)) in (101..).zip(accounts) {
        open_account(&billing, id(number), currency, "UTC", plan).await;
        run_job(&billing, id(number), "2025-10-10T00:00:00Z", "2025-10-10T00:16:40Z").await;
    }
    billing.wait_until_applied(0, 8).await;
    billing.wait_for_listed_accounts(4).await;

    let second = json!({ "plan": euros, "plan_version": 2 });
    let october = async |more: Value| {
        let mut body = second.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        simulate(&billing, "2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z", &body).await
    };
    let all = json!({
        "actual": "80.00", "simulated": "60.00", "effect": "-20.00", "winners": 1, "losers": 1, "unchanged": 1, "skipped": 1,
    });
    let at_once = october(json!({})).await;
    assert_eq!((&at_once["so_far"], &at_once["next"]), (&all, &Value::Null));
    for (limit, expected) in [(1, 4), (2, 2), (3, 2), (4, 1)] {
        let mut page = october(json!({ "limit": limit })).await;
        let (mut pages, mut winners, mut losers) = (0, Vec::new(), Vec::new());
        loop {
            pages += 1;
            winners.extend(page["winners"].as_array().unwrap().clone());
            losers.extend(page["losers"].as_array().unwrap().clone());
            if page["next"].is_null() {
                break;
            }
            page = october(json!({ "limit": limit, "after": page["next"], "so_far": page["so_far"] })).await;
        }
        assert_eq!((pages, &page["so_far"]), (expected, &all), "by {limit}");
        assert_eq!((&json!(winners), &json!(losers)), (&at_once["winners"], &at_once["losers"]));
    }
    let summary = |effect: &Value| ["organization", "difference"].map(|name| effect[name].as_str().unwrap().to_owned());
    assert_eq!(summary(&at_once["winners"][0]), [id(103).to_string(), "-30.00".into()]);
    assert_eq!(summary(&at_once["losers"][0]), [id(101).to_string(), "10.00".into()]);

    let so_far = |name: &str, value: Value| {
        let mut so_far = all.clone();
        so_far[name] = value;
        json!({ "after": id(101), "so_far": so_far })
    };
    let refused = [
        (json!({ "after": id(101) }), "/so_far"),
        (json!({ "so_far": all }), "/after"),
        (json!({ "organization": id(101), "after": id(101), "so_far": all }), "/after"),
        (json!({ "limit": 0 }), "/limit"),
        (json!({ "limit": 201 }), "/limit"),
        (so_far("actual", json!("80.001")), "/so_far/actual"),
        (so_far("simulated", json!("much")), "/so_far/simulated"),
        (so_far("effect", json!("20.00")), "/so_far/effect"),
        (so_far("losers", json!(u64::MAX)), "/so_far/losers"),
    ];
    for (more, pointer) in refused {
        let mut body = json!({ "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z" });
        for extra in [&second, &more] {
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        }
        let problem = billing.post_admin("simulations", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    billing.service.close().await;
}

#[tokio::test]
async fn simulation_lists_winners_and_losers() {
    let billing = october_customer().await;
    billing.assign_plan(&team_plan("0.01")).await;
    billing.wait_for_listed_accounts(1).await;
    let request = |price: &str, organization: Option<Uuid>| {
        json!({
            "definition": team_plan(price), "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z",
            "organization": organization,
        })
    };
    let cheaper = billing.post_admin("simulations", &request("0.005", None)).await.expect(200).json();
    assert_eq!((&cheaper["so_far"]["effect"], &cheaper["losers"]), (&json!("-19.80"), &json!([])));
    assert_eq!(cheaper["winners"][0]["simulated"], "20.06");
    let dearer =
        billing.post_admin("simulations", &request("0.02", Some(billing.organization))).await.expect(200).json();
    assert_eq!((&dearer["losers"][0]["difference"], &dearer["so_far"]["effect"]), (&json!("39.60"), &json!("39.60")));
    let without_plan = json!({ "from": "2025-10-01T00:00:00Z", "to": "2025-11-01T00:00:00Z" });
    billing.post_admin("simulations", &without_plan).await.problem(422);
    billing.service.close().await;
}
