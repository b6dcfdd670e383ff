//! Accounts opened by an operator through the admin API, and changes of their time zone.

use epoch::{FastPath, Repository, Timestamp};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use jiff::tz::TimeZone;
use rating::{account::Account, calendar::month::Month};
use serde_json::{Value, json};
use service_host::testkit::TestResponse;
use uuid::Uuid;

use crate::support::Billing;

fn opening(currency: &str, time_zone: &str) -> Value {
    json!({ "currency": currency, "time_zone": time_zone })
}

/// Opens the account of the organization as an operator.
async fn open_account(billing: &Billing, body: &Value) -> TestResponse {
    billing.post_admin(&format!("organizations/{}/account", billing.organization), body).await
}

async fn assert_no_account(billing: &Billing) {
    billing.service.get(billing.path("account", "")).by(&billing.viewer).send().await.problem(404);
}

/// Asserts that only operators may call the path, and not even an owner of the organization.
async fn assert_operators_only(billing: &Billing, path: &str, body: &Value) {
    let path = format!("/api/v1/admin/organizations/{}/{path}", billing.organization);
    for role in [Role::Viewer, Role::Member, Role::Admin, Role::Owner] {
        let caller = Caller::key(Uuid::now_v7(), billing.organization, role);
        billing.service.post(&path).by(&caller).json(body).send().await.problem(403);
    }
    billing.service.post(&path).json(body).send().await.problem(401);
}

#[tokio::test]
async fn operator_opens_an_account_once() {
    let billing = Billing::start().await;
    assert_operators_only(&billing, "account", &opening("EUR", "UTC")).await;
    assert_no_account(&billing).await;
    // Zone names are case-insensitive and stored in the IANA spelling.
    open_account(&billing, &opening("EUR", "europe/madrid")).await.is(200);
    let account = billing.get_json("account", "").await;
    assert_eq!(
        (&account["organization"], &account["currency"], &account["time_zone"]),
        (&json!(billing.organization), &json!("EUR"), &json!("Europe/Madrid"))
    );
    let again = open_account(&billing, &opening("EUR", "UTC")).await.problem(409);
    assert!(again["detail"].as_str().unwrap().contains("exist"), "{again}");
    assert_eq!(
        billing.get_json("account", "").await["time_zone"],
        "Europe/Madrid",
        "the refused request changes nothing"
    );
    billing.service.close().await;
}

#[tokio::test]
async fn invalid_opening_is_refused_with_pointer() {
    let billing = Billing::start().await;
    for currency in ["EURO", "eur", "XAU", ""] {
        let problem = open_account(&billing, &opening(currency, "UTC")).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/currency", "{problem}");
        assert_no_account(&billing).await;
    }
    for zone in ["Europe/Nowhere", "", "+02:00"] {
        let problem = open_account(&billing, &opening("EUR", zone)).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/time_zone", "{problem}");
        assert_no_account(&billing).await;
    }
    for body in [json!({ "currency": "EUR" }), json!({ "currency": "EUR", "time_zone": "UTC", "zone": "UTC" })] {
        open_account(&billing, &body).await.problem(422);
        assert_no_account(&billing).await;
    }
    billing.service.close().await;
}

#[tokio::test]
async fn time_zone_change_applies_from_a_future_month() {
    let billing = Billing::start().await;
    let this_month = Month::of(Timestamp::now(), &TimeZone::UTC).unwrap();
    let [before, next, after] =
        [this_month.previous().unwrap(), this_month.next().unwrap(), this_month.next().unwrap().next().unwrap()];
    let change = |zone: &str, from: &str| json!({ "time_zone": zone, "from": from });
    assert_operators_only(&billing, "account/time-zone", &change("UTC", &next.to_string())).await;
    billing.post_account("time-zone", &change("UTC", &next.to_string())).await.problem(404);
    open_account(&billing, &opening("EUR", "UTC")).await.is(200);

    let error_pointer = async |zone: &str, from: &str| {
        let problem = billing.post_account("time-zone", &change(zone, from)).await.problem(422);
        problem["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    // The current month has begun in UTC, the zone of its days.
    assert_eq!(error_pointer("Europe/Madrid", &before.to_string()).await, "/from");
    assert_eq!(error_pointer("Europe/Madrid", &this_month.to_string()).await, "/from");
    for invalid in ["2026-13", "next", "2026-3", ""] {
        assert_eq!(error_pointer("Europe/Madrid", invalid).await, "/from", "{invalid:?}");
    }
    assert_eq!(error_pointer("Europe/Nowhere", &next.to_string()).await, "/time_zone");

    // Refused requests change nothing. Accepted ones apply from the given month on.
    let accounts = Repository::<Account, _>::new(PgStore::new(billing.service.pool.clone(), FastPath::new()).0);
    let zone_of =
        async |month: Month| accounts.load(billing.organization).await.unwrap().state.time_zone(month).to_owned();
    assert_eq!(zone_of(after).await, "UTC");
    billing.post_account("time-zone", &change("America/Havana", &after.to_string())).await.is(200);
    assert_eq!((zone_of(next).await.as_str(), zone_of(after).await.as_str()), ("UTC", "America/Havana"));
    // Without `from` the change applies from the next month on.
    billing.post_account("time-zone", &json!({ "time_zone": "europe/madrid" })).await.is(200);
    assert_eq!((zone_of(next).await.as_str(), zone_of(after).await.as_str()), ("Europe/Madrid", "America/Havana"));
    assert_eq!(billing.get_json("account", "").await["time_zone"], "UTC", "the zone of the current month");
    billing.service.close().await;
}
