//! Accounts that an operator opens by hand, and their time zones, through the door.

use epoch::{Repository, Timestamp, local::LocalBus};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use jiff::tz::TimeZone;
use rating::{account::Account, calendar::month::Month};
use serde_json::{Value, json};
use service_host::testkit::TestResponse;
use uuid::Uuid;

use crate::support::Billing;

fn open(currency: &str, time_zone: &str) -> Value {
    json!({ "currency": currency, "time_zone": time_zone })
}

/// An operator asks for the organization's account to be opened.
async fn opened(billing: &Billing, body: &Value) -> TestResponse {
    billing.admin(&format!("organizations/{}/account", billing.organization), body).await
}

/// There is no account.
async fn is_not_there(billing: &Billing) {
    billing.service.get(billing.path("account", "")).by(&billing.viewer).send().await.problem(404);
}

/// Nobody but operators may ask for it, not even an owner of the organization.
async fn refuses_all_but_operators(billing: &Billing, path: &str, body: &Value) {
    let path = format!("/api/v1/admin/organizations/{}/{path}", billing.organization);
    for role in [Role::Viewer, Role::Member, Role::Admin, Role::Owner] {
        let caller = Caller::key(Uuid::now_v7(), billing.organization, role);
        billing.service.post(&path).by(&caller).json(body).send().await.problem(403);
    }
    billing.service.post(&path).json(body).send().await.problem(401);
}

#[tokio::test]
async fn an_operator_opens_an_account_once() {
    let billing = Billing::start().await;
    refuses_all_but_operators(&billing, "account", &open("EUR", "UTC")).await;
    is_not_there(&billing).await;
    // A zone is known by any spelling, and kept as the IANA writes it.
    opened(&billing, &open("EUR", "europe/madrid")).await.is(200);
    let account = billing.ask("account", "").await;
    assert_eq!(
        (&account["organization"], &account["currency"], &account["time_zone"]),
        (&json!(billing.organization), &json!("EUR"), &json!("Europe/Madrid"))
    );
    let again = opened(&billing, &open("EUR", "UTC")).await.problem(409);
    assert!(again["detail"].as_str().unwrap().contains("exist"), "{again}");
    assert_eq!(billing.ask("account", "").await["time_zone"], "Europe/Madrid", "it stays as it was opened");
    billing.service.close().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_with_the_place() {
    let billing = Billing::start().await;
    for currency in ["EURO", "eur", "XAU", ""] {
        let problem = opened(&billing, &open(currency, "UTC")).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/currency", "{problem}");
        is_not_there(&billing).await;
    }
    for zone in ["Europe/Nowhere", "", "+02:00"] {
        let problem = opened(&billing, &open("EUR", zone)).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/time_zone", "{problem}");
        is_not_there(&billing).await;
    }
    for body in [json!({ "currency": "EUR" }), json!({ "currency": "EUR", "time_zone": "UTC", "zone": "UTC" })] {
        opened(&billing, &body).await.problem(422);
        is_not_there(&billing).await;
    }
    billing.service.close().await;
}

#[tokio::test]
async fn another_time_zone_holds_from_a_month_that_has_not_begun() {
    let billing = Billing::start().await;
    let this_month = Month::of(Timestamp::now(), &TimeZone::UTC).unwrap();
    let [before, next, after] =
        [this_month.previous().unwrap(), this_month.next().unwrap(), this_month.next().unwrap().next().unwrap()];
    let change = |zone: &str, from: &str| json!({ "time_zone": zone, "from": from });
    refuses_all_but_operators(&billing, "account/time-zone", &change("UTC", &next.to_string())).await;
    billing.account("time-zone", &change("UTC", &next.to_string())).await.problem(404);
    opened(&billing, &open("EUR", "UTC")).await.is(200);

    let from = async |zone: &str, from: &str| {
        let problem = billing.account("time-zone", &change(zone, from)).await.problem(422);
        problem["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    // The month under way is one of UTC, in which the account's days are.
    assert_eq!(from("Europe/Madrid", &before.to_string()).await, "/from");
    assert_eq!(from("Europe/Madrid", &this_month.to_string()).await, "/from");
    for nonsense in ["2026-13", "next", "2026-3", ""] {
        assert_eq!(from("Europe/Madrid", nonsense).await, "/from", "{nonsense:?}");
    }
    assert_eq!(from("Europe/Nowhere", &next.to_string()).await, "/time_zone");

    // What is refused changes nothing; what is accepted changes days from that month on.
    let accounts = Repository::<Account, _>::new(PgStore::new(billing.service.pool.clone(), LocalBus::new()).0);
    let zone_of =
        async |month: Month| accounts.load(billing.organization).await.unwrap().state.time_zone(month).to_owned();
    assert_eq!(zone_of(after).await, "UTC");
    billing.account("time-zone", &change("America/Havana", &after.to_string())).await.is(200);
    assert_eq!((zone_of(next).await.as_str(), zone_of(after).await.as_str()), ("UTC", "America/Havana"));
    // Without a month it is the next one.
    billing.account("time-zone", &json!({ "time_zone": "europe/madrid" })).await.is(200);
    assert_eq!((zone_of(next).await.as_str(), zone_of(after).await.as_str()), ("Europe/Madrid", "America/Havana"));
    assert_eq!(billing.ask("account", "").await["time_zone"], "UTC", "of the month under way");
    billing.service.close().await;
}
