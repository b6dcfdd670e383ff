//! What another plan would have cost: month by month, for all accounts.

use contracts::job::{self, JobEvent, JobStarted, JobSucceeded};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    accounts::{customer, plan},
    support::{Billing, at, id},
};

/// A plan at this price of a second.
fn seconds(currency: &str, price: &str) -> Value {
    let compute = json!({ "meter": "compute", "unit": "s", "model": "flat", "unit_price": price });
    json!({ "name": "Seconds", "currency": currency, "charges": [compute] })
}

async fn published(billing: &Billing, plan: &Value) -> Value {
    billing.admin("plans", plan).await.expect(201).json()["id"].clone()
}

/// An account that is opened by hand.
async fn open(billing: &Billing, organization: Uuid, currency: &str, time_zone: &str, plan: (&Value, u32)) {
    let body = json!({ "currency": currency, "time_zone": time_zone, "plan": plan.0, "plan_version": plan.1 });
    billing.admin(&format!("organizations/{organization}/account"), &body).await.is(200);
}

/// A job of an organization runs from one instant to another.
async fn ran(billing: &Billing, organization: Uuid, from: &str, to: &str) {
    let started: JobEvent = JobStarted {
        organization_id: organization,
        machine_id: id(900),
        user_id: None,
        machine_type: "default".into(),
    }
    .into();
    let succeeded: JobEvent = JobSucceeded { organization_id: organization, exit_code: 0 }.into();
    let (job, service) = (Uuid::now_v7(), &billing.service);
    for (when, event) in [(from, started), (to, succeeded)] {
        service.publish(job::AGGREGATE, job, organization, at(when), &[event]).await;
    }
}

async fn listed(billing: &Billing, accounts: i64) {
    let listed = async || {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from billing_accounts");
        (count.fetch_one(&billing.service.pool).await.unwrap() == accounts).then_some(())
    };
    billing.service.eventually(listed).await;
}

async fn simulated(billing: &Billing, from: &str, to: &str, more: &Value) -> Value {
    let mut body = json!({ "from": from, "to": to });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    billing.admin("simulations", &body).await.expect(200).json()
}

#[tokio::test]
async fn what_an_account_has_of_its_own_it_keeps() {
    let billing = customer().await;
    let team = billing.assigned(&plan("0.01")).await;
    let own = json!({ "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.02" });
    let price = json!({ "meter": "storage", "charge": own, "from": "2025-10-02T12:00:00Z" });
    billing.account("prices", &price).await.is(200);
    billing.account("discount", &json!({ "percent": "10", "reason": "r" })).await.is(200);
    let october = async |plan: Value| {
        let mut more = plan;
        more["organization"] = json!(billing.organization);
        simulated(&billing, "2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z", &more).await
    };
    // The plan that it has makes no difference: 36.00, 0.12 and 0.24, less 10 %, and 10 % tax.
    let same = october(json!({ "plan": team, "plan_version": 1 })).await;
    assert_eq!(
        same["so_far"],
        json!({
            "actual": "35.99", "simulated": "35.99", "effect": "0.00", "winners": 0, "losers": 0, "unchanged": 1, "skipped": 0,
        })
    );
    assert_eq!(billing.ask("invoices/2025-10", "").await["total"], "35.99");
    // Storage at a euro would cost it 12 euros, for the half of the day before its own price.
    let mut dear = plan("0.01");
    dear["charges"][1]["unit_price"] = json!("1");
    let dear = october(json!({ "definition": dear })).await;
    assert_eq!(dear["losers"][0]["simulated"], "47.76");
    billing.service.close().await;
}

#[tokio::test]
async fn each_month_of_the_account_is_rated_as_one() {
    let billing = Billing::start().await;
    let organization = billing.organization;
    let flat = published(&billing, &seconds("EUR", "0.01")).await;
    open(&billing, organization, "EUR", "Europe/Madrid", (&flat, 1)).await;
    ran(&billing, organization, "2025-10-10T10:00:00Z", "2025-10-10T10:25:00Z").await;
    // Over midnight in Madrid: 600 seconds of October and as many of November.
    ran(&billing, organization, "2025-10-31T22:50:00Z", "2025-10-31T23:10:00Z").await;
    ran(&billing, organization, "2025-11-10T10:00:00Z", "2025-11-10T10:11:40Z").await;
    billing.caught_up(0, 6).await;
    listed(&billing, 1).await;

    let mut free = seconds("EUR", "0.01");
    free["charges"][0]["free"] = json!("1000");
    free["minimum"] = json!("5");
    let free = json!({ "definition": free });
    // 2,100 and 1,300 seconds, of which a thousand are free in each month; the second month comes to less than the minimum.
    let both = simulated(&billing, "2025-09-30T22:00:00Z", "2025-11-30T23:00:00Z", &free).await;
    assert_eq!((&both["winners"][0]["actual"], &both["winners"][0]["simulated"]), (&json!("34.00"), &json!("16.00")));
    // Parts of months are months of their own: 600 seconds in each.
    let parts = simulated(&billing, "2025-10-15T00:00:00Z", "2025-11-05T00:00:00Z", &free).await;
    assert_eq!((&parts["winners"][0]["actual"], &parts["winners"][0]["simulated"]), (&json!("12.00"), &json!("10.00")));
    billing.service.close().await;
}

#[tokio::test]
async fn pages_add_up_to_all_accounts() {
    let billing = Billing::start().await;
    let euros = published(&billing, &seconds("EUR", "0.01")).await;
    let versions = format!("plans/{}/versions", euros.as_str().unwrap());
    billing.admin(&versions, &seconds("EUR", "0.02")).await.is(200);
    let dear = published(&billing, &seconds("EUR", "0.05")).await;
    let yen = published(&billing, &seconds("JPY", "1")).await;
    let accounts = [("EUR", (&euros, 1)), ("JPY", (&yen, 1)), ("EUR", (&dear, 1)), ("EUR", (&euros, 2))];
    for (number, (currency, plan)) in (101..).zip(accounts) {
        open(&billing, id(number), currency, "UTC", plan).await;
        ran(&billing, id(number), "2025-10-10T00:00:00Z", "2025-10-10T00:16:40Z").await;
    }
    billing.caught_up(0, 8).await;
    listed(&billing, 4).await;

    let second = json!({ "plan": euros, "plan_version": 2 });
    let october = async |more: Value| {
        let mut body = second.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        simulated(&billing, "2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z", &body).await
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
    let told = |effect: &Value| ["organization", "difference"].map(|name| effect[name].as_str().unwrap().to_owned());
    assert_eq!(told(&at_once["winners"][0]), [id(103).to_string(), "-30.00".into()]);
    assert_eq!(told(&at_once["losers"][0]), [id(101).to_string(), "10.00".into()]);

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
        let problem = billing.admin("simulations", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    billing.service.close().await;
}
