//! The standard plan: the prices of the installation as a versioned plan that new accounts are pinned to.

use billing::invoicing::{error::LedgerError, ledger::Ledger, open::Opening, simulation::SimulationTotals};
use contracts::{
    billing_account::{self, AccountOpened, BillingAccountEvent},
    file::{self, FileEvent},
    organization::{OrganizationCreated, OrganizationEvent},
};
use epoch::{
    CommandContext, Version,
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use futures::future::join_all;
use http_kit::Caller;
use rating::{
    account::{AccountCommand, BEGINNING, Pin},
    pricing::{
        plan_aggregate::{PlanCommand, PlanDefinition, standard},
        standard_plan::FlatPrices,
    },
    rating::term::TermError,
    sharing::rule::SharingRule,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    read_models::ReadModels,
    support::{Billing, at, id, invoice_ledger, october_customer, part_uploaded, team_plan},
};

/// Opens the ledger of a process with this price of a GB-hour, on 2025-12-02.
fn open_process(pool: &PgPool, gb_hour: &str) -> Ledger {
    let prices = FlatPrices {
        currency: "EUR".parse().unwrap(),
        gb_hour: gb_hour.parse().unwrap(),
        second: "0.00005".parse().unwrap(),
    };
    invoice_ledger(pool, prices.plan(), || at("2025-12-02T00:00:00Z"))
}

/// Stores 1 GB from September 2025 on for each organization.
async fn store_files(organizations: &[Uuid]) -> ReadModels {
    let mut read_models = ReadModels::new().await;
    let september = at("2025-09-01T00:00:00Z").as_millis();
    let mut events = Vec::new();
    for organization in organizations {
        read_models.organization = *organization;
        let part: FileEvent = part_uploaded(*organization, 0, 1_000_000_000).into();
        events.push(read_models.event(file::AGGREGATE, Uuid::now_v7(), september, september, &part));
    }
    read_models.deliver(&events).await;
    read_models
}

fn opening(plan: Option<Pin>) -> Opening {
    Opening { currency: "EUR".parse().unwrap(), time_zone: "UTC".into(), plan }
}

/// Opens an account as earlier versions did, without a plan.
async fn open_without_plan(ledger: &Ledger, organization: Uuid, currency: &str) {
    let opened: BillingAccountEvent = AccountOpened { currency: currency.into(), time_zone: "UTC".into() }.into();
    let append = Append {
        aggregate: billing_account::AGGREGATE,
        aggregate_id: organization,
        expected: Version::ZERO,
        previous: None,
        events: vec![NewEvent::encode(&opened).unwrap()],
        context: CommandContext::new().for_tenant(organization),
    };
    assert!(matches!(ledger.store().append(append).await.unwrap(), AppendOutcome::Committed { .. }));
}

fn yen_plan() -> PlanDefinition {
    let charges = r#"[{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"2"}]"#;
    PlanDefinition {
        name: "Yen".into(),
        currency: "JPY".into(),
        split: SharingRule::Split,
        charges: serde_json::from_str(charges).unwrap(),
        minimum: None,
        tax_percent: None,
    }
}

/// Returns the start and the version of each pin, and asserts that all pins are of the standard plan.
async fn pins(ledger: &Ledger, organization: Uuid) -> Vec<(epoch::Timestamp, u32)> {
    let account = ledger.account(organization).await.unwrap();
    let pins = account.pins().inspect(|(_, pin)| assert_eq!(pin.plan, standard()));
    pins.map(|(from, pin)| (from, pin.version)).collect()
}

#[tokio::test]
async fn price_change_applies_to_new_accounts_only() {
    let (old, new) = (id(101), id(102));
    let read_models = store_files(&[old, new]).await;
    let context = CommandContext::new;
    let before = open_process(&read_models.pool, "0.01");
    before.open(old, opening(None), &context()).await.unwrap();
    let [september, october] = ["2025-09", "2025-10"].map(|month| month.parse().unwrap());
    before.finalize(old, september, &context()).await.unwrap();
    let draft = before.draft(old, october).await.unwrap().1;
    assert_eq!(draft.total, "7.44");

    // The same installation with another price.
    let after = open_process(&read_models.pool, "0.1");
    assert_eq!(after.draft(old, october).await.unwrap().1, draft);
    after.finalize(old, october, &context()).await.unwrap();
    let finalized = after.invoice_of(old, october).await.unwrap().1.finalized().unwrap().clone();
    assert_eq!((finalized.corrections.len(), finalized.total.as_str()), (0, "7.44"));
    assert!(after.invoice_of(old, september).await.unwrap().1.adjustments().is_empty());
    after.open(new, opening(None), &context()).await.unwrap();
    assert_eq!(after.draft(new, october).await.unwrap().1.total, "74.40");
    assert_eq!((pins(&after, old).await, pins(&after, new).await), (vec![(BEGINNING, 1)], vec![(BEGINNING, 2)]));
    // An organization without an account gets an estimate at current prices.
    let period = after.period(&after.account(new).await.unwrap(), october).unwrap().0;
    let terms = after.terms(id(103), period).await.unwrap();
    assert_eq!((terms.len(), terms[0].plan.key.plan.as_str()), (1, "standard"));
    read_models.close().await;
}

#[tokio::test]
async fn standard_version_is_published_once_for_many_accounts() {
    let read_models = ReadModels::new().await;
    let processes = [(); 4].map(|()| open_process(&read_models.pool, "0.01"));
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
    read_models.close().await;
}

#[tokio::test]
async fn account_without_plan_is_charged_in_its_own_currency_only() {
    let (euro, yen) = (id(101), id(102));
    let read_models = store_files(&[euro, yen]).await;
    let ledger = open_process(&read_models.pool, "0.01");
    open_without_plan(&ledger, euro, "EUR").await;
    open_without_plan(&ledger, yen, "JPY").await;
    let october = "2025-10".parse().unwrap();
    let draft = ledger.draft(euro, october).await.unwrap().1;
    assert_eq!((draft.lines[0].plan.as_str(), draft.total.as_str()), ("standard", "7.44"));
    let refused = ledger.draft(yen, october).await.unwrap_err();
    let LedgerError::Charging(TermError::OtherCurrency { account, currency, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((account, currency), ("JPY", "EUR"));

    // A plan from the middle of October on leaves the first half of the month without a plan, so a simulation skips the
    // account.
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
    let simulated =
        ledger.simulate(&[yen, other, euro], &version, period, now, SimulationTotals::none(currency)).await.unwrap();
    assert_eq!((simulated.totals.skipped, simulated.totals.unchanged, simulated.effects.len()), (2, 1, 1));
    read_models.close().await;
}

#[tokio::test]
async fn standard_plan_is_listed_and_cannot_be_changed() {
    let billing = october_customer().await;
    let others: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
    join_all(others.iter().map(async |organization| {
        let created: OrganizationEvent = OrganizationCreated { name: "Other".into() }.into();
        let when = at("2025-10-01T00:00:00Z");
        billing.service.publish("organization", *organization, *organization, when, &[created]).await;
    }))
    .await;
    billing.wait_for_listed_accounts(9).await;
    let listed = async || {
        let plans = billing.service.get("/api/v1/admin/plans").by(&Caller::operator()).send().await.expect(200).json();
        plans["items"].as_array().unwrap().first().cloned()
    };
    let listed = billing.service.eventually(listed).await;
    let fields = ["id", "name", "currency", "newest", "retired"].map(|name| listed[name].clone());
    assert_eq!(fields, [json!(standard()), json!("Standard"), json!("EUR"), json!(1), json!(false)]);
    let path = |action: &str| format!("plans/{}/{action}", standard());
    let retire = billing.post_admin(&path("retire"), &json!({ "reason": "sold out" })).await.problem(409);
    let publish = billing.post_admin(&path("versions"), &team_plan("1")).await.problem(409);
    assert_eq!(
        (&retire["type"], &publish["type"]),
        (&json!("/problems/standard-plan"), &json!("/problems/standard-plan"))
    );
    let october = billing.get_json("invoices/2025-10", "").await;
    assert_eq!((&october["lines"][0]["plan"], &october["total"]), (&json!(standard()), &json!("0.18")));
    billing.service.close().await;
}

#[tokio::test]
async fn foreign_currency_account_requires_a_plan_in_it() {
    let billing = Billing::start().await;
    let published = async |currency: &str| {
        let mut body = team_plan("2");
        body["currency"] = json!(currency);
        billing.publish_plan(&body).await
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
    let retire = format!("plans/{yen}/retire");
    billing.post_admin(&retire, &json!({ "reason": "sold out" })).await.is(200);
    assert_eq!(open("f", by_yen.clone()).await.expect(200).json(), first, "the first result is returned");
    assert_eq!(open("f", json!({})).await.problem(422)["type"], "/problems/idempotency-key-reused");
    open("g", by_yen).await.problem(409);

    // JPY has no minor unit: a credit of 100 is 100 yen.
    billing.post_account("credits", &json!({ "amount": "100", "reason": "r" })).await.is(200);
    let account = billing.get_json("account", "").await;
    let pinned = json!([{ "from": BEGINNING.to_string(), "plan": yen, "plan_version": 1, "notice": null }]);
    assert_eq!((&account["credit"], &account["currency"], &account["plans"]), (&json!("100"), &json!("JPY"), &pinned));
    assert_eq!(billing.get_json("invoices/2025-10", "").await["currency"], "JPY");
    billing.service.close().await;
}
