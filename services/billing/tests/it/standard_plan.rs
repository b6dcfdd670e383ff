//! The installation's prices: a plan whose versions accounts are opened by, each in one currency.

use std::sync::Arc;

use billing::invoicing::{error::LedgerError, open::Opening, simulation::Sums};
use contracts::{
    billing_account::{self, AccountOpened, BillingAccountEvent},
    file::{self, FileEvent, FilePartUploaded},
    organization::{OrganizationCreated, OrganizationEvent},
};
use epoch::{
    CommandContext, Version,
    local::LocalBus,
    store::{Append, Appended, Appender, NewEvent},
};
use epoch_postgres::PgStore;
use futures::future::join_all;
use http_kit::Caller;
use rating::{
    account::{AccountCommand, BEGINNING, Pin},
    pricing::{
        plan_aggregate::{PlanCommand, PlanDefinition, standard},
        standard_plan::FlatPrices,
    },
    rating::term::ChargingError,
    sharing::rule::Rule,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    accounts::{customer, plan},
    read_models::Ledger,
    support::{Billing, at, id},
};

/// A process of the service with this price of a gigabyte-hour, on December 2, 2025.
fn process(pool: &PgPool, gb_hour: &str) -> billing::invoicing::ledger::Ledger {
    let (store, appender) = PgStore::new(pool.clone(), LocalBus::new());
    tokio::spawn(appender.run());
    let prices = FlatPrices {
        currency: "EUR".parse().unwrap(),
        gb_hour: gb_hour.parse().unwrap(),
        second: "0.00005".parse().unwrap(),
    };
    let now = at("2025-12-02T00:00:00Z");
    billing::invoicing::ledger::Ledger::new(store, prices.plan(), Arc::new(move || now))
}

/// These organizations store a gigabyte since September 2025.
async fn stored(organizations: &[Uuid]) -> Ledger {
    let mut ledger = Ledger::new().await;
    let september = at("2025-09-01T00:00:00Z").as_millis();
    let mut events = Vec::new();
    for organization in organizations {
        ledger.organization = *organization;
        let part: FileEvent = FilePartUploaded {
            organization_id: *organization,
            part_id: Uuid::now_v7(),
            offset: 0,
            bytes: 1_000_000_000,
            sha256: "0".repeat(64),
        }
        .into();
        events.push(ledger.event(file::AGGREGATE, Uuid::now_v7(), september, september, &part));
    }
    ledger.deliver(&events).await;
    ledger
}

fn opening(plan: Option<Pin>) -> Opening {
    Opening { currency: "EUR".parse().unwrap(), time_zone: "UTC".into(), plan }
}

/// An account as it was opened before accounts were opened by a plan.
async fn opened_before(ledger: &billing::invoicing::ledger::Ledger, organization: Uuid, currency: &str) {
    let opened: BillingAccountEvent = AccountOpened { currency: currency.into(), time_zone: "UTC".into() }.into();
    let append = Append {
        aggregate: billing_account::AGGREGATE,
        aggregate_id: organization,
        expected: Version::ZERO,
        previous: None,
        events: vec![NewEvent::encode(&opened).unwrap()],
        context: CommandContext::new().for_tenant(organization),
    };
    assert!(matches!(ledger.store().append(append).await.unwrap(), Appended::Committed { .. }));
}

fn yen_plan() -> PlanDefinition {
    let charges = r#"[{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"2"}]"#;
    PlanDefinition {
        name: "Yen".into(),
        currency: "JPY".into(),
        split: Rule::Split,
        charges: serde_json::from_str(charges).unwrap(),
        minimum: None,
        tax_percent: None,
    }
}

async fn pins(ledger: &billing::invoicing::ledger::Ledger, organization: Uuid) -> Vec<(epoch::Timestamp, u32)> {
    let account = ledger.account(organization).await.unwrap();
    let pins = account.pins().inspect(|(_, pin)| assert_eq!(pin.plan, standard()));
    pins.map(|(from, pin)| (from, pin.version)).collect()
}

#[tokio::test]
async fn other_prices_are_for_those_who_come_later() {
    let (old, new) = (id(101), id(102));
    let events = stored(&[old, new]).await;
    let context = CommandContext::new;
    let before = process(&events.pool, "0.01");
    before.open(old, opening(None), &context()).await.unwrap();
    let [september, october] = ["2025-09", "2025-10"].map(|month| month.parse().unwrap());
    before.finalize(old, september, &context()).await.unwrap();
    let draft = before.draft(old, october).await.unwrap().1;
    assert_eq!(draft.total, "7.44");

    // The same installation with another price.
    let after = process(&events.pool, "0.1");
    assert_eq!(after.draft(old, october).await.unwrap().1, draft);
    after.finalize(old, october, &context()).await.unwrap();
    let frozen = after.invoice_of(old, october).await.unwrap().1.finalized().unwrap().clone();
    assert_eq!((frozen.corrections.len(), frozen.total.as_str()), (0, "7.44"));
    assert!(after.invoice_of(old, september).await.unwrap().1.adjustments().is_empty());
    after.open(new, opening(None), &context()).await.unwrap();
    assert_eq!(after.draft(new, october).await.unwrap().1.total, "74.40");
    assert_eq!((pins(&after, old).await, pins(&after, new).await), (vec![(BEGINNING, 1)], vec![(BEGINNING, 2)]));
    // Without an account: an estimate by the prices of today.
    let period = after.period(&after.account(new).await.unwrap(), october).unwrap().0;
    let terms = after.terms(id(103), period).await.unwrap();
    assert_eq!((terms.len(), terms[0].plan.key.plan.as_str()), (1, "standard"));
    events.close().await;
}

#[tokio::test]
async fn a_version_is_published_once_however_many_accounts_are_opened_by_it() {
    let events = Ledger::new().await;
    let processes = [(); 4].map(|()| process(&events.pool, "0.01"));
    let organizations: Vec<_> = (0..16).map(|_| Uuid::now_v7()).collect();
    let contexts: Vec<_> = organizations.iter().map(|_| CommandContext::new()).collect();
    let opened = organizations.iter().zip(processes.iter().cycle()).zip(&contexts);
    let opened = opened.map(|((organization, process), context)| process.open(*organization, opening(None), context));
    for opened in join_all(opened).await {
        assert_eq!(opened.unwrap().version, Version::new(2));
    }
    for organization in &organizations {
        assert_eq!(pins(&processes[0], *organization).await, [(BEGINNING, 1)]);
    }
    let catalogue = processes[0].plans.load(standard()).await.unwrap();
    assert_eq!((catalogue.state.versions().len(), catalogue.version), (1, Version::new(1)));
    events.close().await;
}

#[tokio::test]
async fn an_account_that_was_opened_without_a_plan_is_charged_in_its_own_currency_or_not_at_all() {
    let (euro, yen) = (id(101), id(102));
    let events = stored(&[euro, yen]).await;
    let ledger = process(&events.pool, "0.01");
    opened_before(&ledger, euro, "EUR").await;
    opened_before(&ledger, yen, "JPY").await;
    let october = "2025-10".parse().unwrap();
    let draft = ledger.draft(euro, october).await.unwrap().1;
    assert_eq!((draft.lines[0].plan.as_str(), draft.total.as_str()), ("standard", "7.44"));
    let refused = ledger.draft(yen, october).await.unwrap_err();
    let LedgerError::Charging(ChargingError::OtherCurrency { account, currency, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((account, currency), ("JPY", "EUR"));

    // With a plan from the middle of October on its half of the month before still has none: in a simulation it is skipped.
    let (plan, context, from) = (id(201), CommandContext::new(), at("2025-10-15T00:00:00Z"));
    let publish = PlanCommand::Publish(yen_plan());
    ledger.plans.execute(plan, &publish, &context).await.unwrap();
    let (pin, currency, now) = (Pin { plan, version: 1 }, "JPY".parse().unwrap(), ledger.now());
    let assign = AccountCommand::AssignPlan { pin, currency, from, now, notice: None };
    ledger.accounts.execute(yen, &assign, &CommandContext::new()).await.unwrap();
    assert!(matches!(ledger.draft(yen, october).await, Err(LedgerError::Charging(_))));
    let other = id(103);
    let opening = Opening { currency, time_zone: "UTC".into(), plan: Some(pin) };
    ledger.open(other, opening, &CommandContext::new()).await.unwrap();
    let period = ledger.period(&ledger.account(yen).await.unwrap(), october).unwrap().0;
    let version = ledger.plans.load(plan).await.unwrap().state.version(plan, 1).unwrap();
    let simulated = ledger.simulate(&[yen, other, euro], &version, period, now, Sums::none(currency)).await.unwrap();
    assert_eq!((simulated.so_far.skipped, simulated.so_far.unchanged, simulated.effects.len()), (2, 1, 1));
    events.close().await;
}

#[tokio::test]
async fn is_seen_and_stays() {
    let billing = customer().await;
    let others: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
    join_all(others.iter().map(async |organization| {
        let created: OrganizationEvent = OrganizationCreated { name: "Other".into() }.into();
        let when = at("2025-10-01T00:00:00Z");
        billing.service.publish("organization", *organization, *organization, when, &[created]).await;
    }))
    .await;
    let opened = async || {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from billing_accounts");
        (count.fetch_one(&billing.service.pool).await.unwrap() == 9).then_some(())
    };
    billing.service.eventually(opened).await;
    let listed = async || {
        let plans = billing.service.get("/api/v1/admin/plans").by(&Caller::operator()).send().await.expect(200).json();
        plans["items"].as_array().unwrap().first().cloned()
    };
    let listed = billing.service.eventually(listed).await;
    let told = ["id", "name", "currency", "newest", "retired"].map(|name| listed[name].clone());
    assert_eq!(told, [json!(standard()), json!("Standard"), json!("EUR"), json!(1), json!(false)]);
    let path = |what: &str| format!("plans/{}/{what}", standard());
    let retire = billing.admin(&path("retire"), &json!({ "reason": "sold out" })).await.problem(409);
    let publish = billing.admin(&path("versions"), &plan("1")).await.problem(409);
    assert_eq!(
        (&retire["type"], &publish["type"]),
        (&json!("/problems/standard-plan"), &json!("/problems/standard-plan"))
    );
    let october = billing.ask("invoices/2025-10", "").await;
    assert_eq!((&october["lines"][0]["plan"], &october["total"]), (&json!(standard()), &json!("0.18")));
    billing.service.close().await;
}

#[tokio::test]
async fn an_account_in_another_currency_is_opened_by_a_plan_in_it() {
    let billing = Billing::start().await;
    let published = async |currency: &str| {
        let mut body = plan("2");
        body["currency"] = json!(currency);
        billing.admin("plans", &body).await.expect(201).json()["id"].clone()
    };
    let (yen, dollar) = (published("JPY").await, published("USD").await);
    let open = async |key: &'static str, more: Value| {
        let mut body = json!({ "currency": "JPY", "time_zone": "Asia/Tokyo" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("/api/v1/admin/organizations/{}/account", billing.organization);
        let request = billing.service.post(path).by(&Caller::operator()).header("idempotency-key", key);
        request.json(&body).send().await
    };
    let refused = [
        (json!({}), "/currency", "needs a plan in JPY"),
        (json!({ "plan": dollar, "plan_version": 1 }), "/currency", "USD"),
        (json!({ "plan": yen }), "/plan_version", ""),
        (json!({ "plan_version": 1 }), "/plan", ""),
    ];
    for (number, (more, pointer, reason)) in refused.into_iter().enumerate() {
        let problem = open(["a", "b", "c", "d"][number], more).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
    }
    open("e", json!({ "plan": yen, "plan_version": 2 })).await.problem(404);
    let by_yen = json!({ "plan": yen, "plan_version": 1 });
    let first = open("f", by_yen.clone()).await.expect(200).json();
    let retire = format!("plans/{}/retire", yen.as_str().unwrap());
    billing.admin(&retire, &json!({ "reason": "sold out" })).await.is(200);
    assert_eq!(open("f", by_yen.clone()).await.expect(200).json(), first, "the same again");
    assert_eq!(open("f", json!({})).await.problem(422)["type"], "/problems/idempotency-key-reused");
    open("g", by_yen).await.problem(409);

    // A hundred yen of credit are a hundred yen.
    billing.account("credits", &json!({ "amount": "100", "reason": "r" })).await.is(200);
    let account = billing.ask("account", "").await;
    let pinned = json!([{ "from": BEGINNING.to_string(), "plan": yen, "plan_version": 1, "notice": null }]);
    assert_eq!((&account["credit"], &account["currency"], &account["plans"]), (&json!("100"), &json!("JPY"), &pinned));
    assert_eq!(billing.ask("invoices/2025-10", "").await["currency"], "JPY");
    billing.service.close().await;
}
