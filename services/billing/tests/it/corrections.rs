//! Corrections of finalized invoices: late usage, voids and repeated requests leave the total charged correct.

use std::collections::BTreeMap;

use contracts::invoice::{AdjustmentBooked, Correction, InvoiceDrafted, InvoiceEvent, InvoiceFinalized, Line};
use epoch::{Aggregate, Timestamp};
use http_kit::Caller;
use proptest::{collection::vec, prelude::*};
use rating::{
    invoice::{InvoiceCommand, InvoiceState, LineAmount, LineKey},
    money::amount::Amount,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Billing, id, october_customer, team_plan};

/// A step on one of three months.
#[derive(Debug, Clone)]
enum Step {
    /// The usage of the month now costs this many cents.
    UsageCosts(usize, i64),
    Finalized(usize),
    Voided(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, 0..1_000_i64).prop_map(|(month, cents)| Step::UsageCosts(month, cents)),
        3 => (0..3_usize).prop_map(Step::Finalized),
        2 => (0..3_usize).prop_map(Step::Voided),
    ]
}

fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents.into(), "EUR".parse().unwrap())
}

fn amount(text: &str) -> Amount {
    Amount::parse(text, "EUR".parse().unwrap()).unwrap()
}

/// The invoices of a customer, and the sum of all charges minus all credit notes.
struct Books {
    invoices: BTreeMap<Uuid, InvoiceState>,
    /// The invoice of each month that is finalized and not void.
    active: BTreeMap<usize, Uuid>,
    /// The cost of each month in cents, as known now.
    known: [i64; 3],
    charged: Amount,
    number: i64,
}

impl Books {
    fn new() -> Self {
        let (invoices, active) = (BTreeMap::new(), BTreeMap::new());
        Self { invoices, active, known: [0; 3], charged: cents(0), number: 0 }
    }

    fn execute(&mut self, id: Uuid, command: &InvoiceCommand) -> Vec<InvoiceEvent> {
        let invoice = self.invoices.entry(id).or_default();
        let events = invoice.decide(command).unwrap();
        events.iter().for_each(|event| invoice.evolve(event));
        events
    }

    fn lines(&self, month: usize) -> Vec<LineAmount> {
        let key = LineKey { meter: "compute".into(), plan: "p".into(), plan_version: 1 };
        vec![LineAmount { key, metered: 0, amount: cents(self.known[month]) }]
    }

    fn finalize(&mut self, month: usize) {
        if self.active.contains_key(&month) {
            return;
        }
        let id = Uuid::now_v7();
        self.execute(
            id,
            &InvoiceCommand::Draft(InvoiceDrafted {
                organization_id: Uuid::nil(),
                month: month.to_string(),
                start_at: Timestamp::from_millis(0),
                end_at: Timestamp::from_millis(1),
                time_zone: "UTC".into(),
            }),
        );
        let mut corrections = Vec::new();
        for (of, invoice) in self.active.clone() {
            let adjust = InvoiceCommand::Adjust { lines: self.lines(of), settled_in: id, reason: "late".into() };
            for event in self.execute(invoice, &adjust) {
                let InvoiceEvent::AdjustmentBooked(AdjustmentBooked { meter, plan, plan_version, amount, .. }) = event
                else {
                    panic!("{event:?}")
                };
                let month = of.to_string();
                corrections.push(Correction { invoice_id: invoice, month, meter, plan, plan_version, amount });
            }
        }
        let subtotal = cents(self.known[month]);
        let total = corrections.iter().fold(subtotal.clone(), |sum, correction| sum.plus(&amount(&correction.amount)));
        self.number += 1;
        let zero = || "0.00".to_owned();
        self.execute(
            id,
            &InvoiceCommand::Finalize(Box::new(InvoiceFinalized {
                organization_id: Uuid::nil(),
                number: self.number,
                currency: "EUR".into(),
                lines: vec![Line {
                    meter: "compute".into(),
                    unit: "s".into(),
                    plan: "p".into(),
                    plan_version: 1,
                    metered: "0".into(),
                    quantity: "0".into(),
                    amount: subtotal.to_string(),
                }],
                corrections,
                days: vec![],
                rounding: "0".into(),
                subtotal: subtotal.to_string(),
                discount: zero(),
                minimum_true_up: zero(),
                tax: zero(),
                total: total.to_string(),
                credit_applied: zero(),
                amount_due: total.to_string(),
                discount_percent: "0".into(),
            })),
        );
        self.charged = self.charged.plus(&total);
        self.active.insert(month, id);
    }

    fn void(&mut self, month: usize) {
        let Some(id) = self.active.remove(&month) else { return };
        let corrections = self.invoices[&id].finalized().unwrap().corrections.clone();
        let mut void = Vec::new();
        for correction in corrections {
            if self.invoices[&correction.invoice_id].voided().is_some() {
                void.push(correction.invoice_id);
            } else {
                self.execute(correction.invoice_id, &InvoiceCommand::Release { settled_in: id });
            }
        }
        self.number += 1;
        let void = InvoiceCommand::Void { reason: "wrong".into(), credit_note: self.number, void };
        for event in self.execute(id, &void) {
            let InvoiceEvent::InvoiceVoided(voided) = event else { panic!("{event:?}") };
            self.charged = self.charged.minus(&amount(&voided.amount.unwrap()));
        }
    }
}

proptest! {
    /// [`billing::invoicing::ledger::Ledger`] follows two rules. A finalized invoice settles the adjustments of all active
    /// invoices. A void releases the adjustments that the void invoice had settled.
    #[test]
    fn total_charged_equals_sum_of_active_invoices(steps in vec(step(), 1..30)) {
        let mut books = Books::new();
        for step in steps {
            match step {
                Step::UsageCosts(month, cents) => books.known[month] = cents,
                Step::Finalized(month) => books.finalize(month),
                Step::Voided(month) => books.void(month),
            }
        }
        (0..3).for_each(|month| books.void(month));
        prop_assert_eq!(&books.charged, &cents(0), "without active invoices nothing is charged");
        (0..3).for_each(|month| books.finalize(month));
        let known: i64 = books.known.iter().sum();
        prop_assert_eq!(&books.charged, &cents(known));
    }

    /// Each finalization settles all corrections, also while other invoices stay active.
    #[test]
    fn latest_invoice_settles_all_corrections(steps in vec(step(), 1..30)) {
        let mut books = Books::new();
        for step in steps {
            let before = books.number;
            match step {
                Step::UsageCosts(month, cents) => books.known[month] = cents,
                Step::Finalized(month) => books.finalize(month),
                Step::Voided(month) => books.void(month),
            }
            if matches!(step, Step::Finalized(_)) && books.number > before {
                let known: i64 = books.active.keys().map(|month| books.known[*month]).sum();
                prop_assert_eq!(&books.charged, &cents(known));
            }
        }
    }
}

struct Operator {
    billing: Billing,
}

impl Operator {
    async fn post_invoice(&self, action: &str, key: &str, body: &Value) -> Value {
        let path = format!("/api/v1/admin/organizations/{}/invoices/{action}", self.billing.organization);
        let request = self.billing.service.post(path).by(&Caller::operator()).header("idempotency-key", key);
        request.json(body).send().await.expect(200).json()
    }

    async fn finalize(&self, month: &str, key: &str) -> Value {
        self.post_invoice(&format!("{month}/finalize"), key, &json!(null)).await
    }

    async fn void(&self, month: &str, key: &str) -> Value {
        self.post_invoice(&format!("{month}/void"), key, &json!({ "reason": "wrong <address>" })).await
    }

    async fn invoice(&self, month_or_id: &str) -> Value {
        self.billing.get_json(&format!("invoices/{month_or_id}"), "").await
    }

    /// Publishes a job of 100 seconds in October, and waits until this many job events are applied in all.
    async fn publish_october_job(&self, job: u128, events: i64) {
        self.billing.job(id(job), "2025-10-05T08:00:00Z", self.billing.job_started(None)).await;
        self.billing.job(id(job), "2025-10-05T08:01:40Z", self.billing.job_succeeded()).await;
        self.billing.wait_until_applied(2, events).await;
    }
}

/// Finalizes October, publishes a late job of October, and finalizes November, which settles it.
///
/// Returns when October was finalized.
async fn settle_late_job() -> (Operator, Timestamp) {
    let operator = Operator { billing: october_customer().await };
    operator.billing.assign_plan(&team_plan("0.01")).await;
    operator.finalize("2025-10", "f1").await;
    let explained = operator.billing.get_json("invoices/2025-10/explanation", "").await;
    let finalized_at: Timestamp = explained["known_at"].as_str().unwrap().parse().unwrap();
    operator.billing.service.eventually(async || (Timestamp::now() > finalized_at).then_some(())).await;
    operator.publish_october_job(12, 4).await;
    operator.finalize("2025-11", "f2").await;
    (operator, finalized_at)
}

fn corrections(invoice: &Value) -> Vec<String> {
    let text = |correction: &Value| {
        format!("{} {} {}", correction["month"], correction["meter"], correction["amount"]).replace('"', "")
    };
    invoice["corrections"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn repeated_request_after_a_void_changes_nothing() {
    let operator = Operator { billing: october_customer().await };
    operator.billing.assign_plan(&team_plan("0.01")).await;
    operator.billing.post_account("credits", &json!({ "amount": "10", "reason": "welcome" })).await.is(200);
    let first = operator.finalize("2025-10", "f1").await;
    let path = format!("/api/v1/admin/organizations/{}/invoices/2025-10/void", operator.billing.organization);
    let stale = operator.billing.service.post(path).by(&Caller::operator()).header("if-match", "\"99\"");
    stale.json(&json!({ "reason": "unseen" })).send().await.problem(412);
    let void = operator.void("2025-10", "v1").await;
    assert_eq!(operator.finalize("2025-10", "f1").await["version"], first["version"], "the first result is returned");
    assert_eq!(operator.invoice("2025-10").await["status"], "draft", "the repeated request finalizes nothing");
    assert_eq!(operator.billing.get_json("account", "").await["credit"], "10.00");

    operator.finalize("2025-10", "f2").await;
    assert_eq!(operator.void("2025-10", "v1").await["version"], void["version"]);
    let invoice = operator.invoice("2025-10").await;
    assert_eq!((&invoice["status"], &invoice["number"]), (&json!("finalized"), &json!(3)), "no number is skipped");
    assert_eq!(operator.billing.get_json("account", "").await["credit"], "0.00", "the invoice uses the credit up");
    operator.finalize("2025-11", "f3").await;
    assert_eq!(operator.invoice("2025-11").await["number"], 4);
    operator.billing.service.close().await;
}

#[tokio::test]
async fn correction_is_drafted_settled_released_and_refunded_once() {
    let operator = Operator { billing: october_customer().await };
    operator.billing.assign_plan(&team_plan("0.01")).await;
    operator.finalize("2025-10", "f1").await;
    let october = operator.invoice("2025-10").await;
    assert_eq!(october["total"], "39.86");
    operator.publish_october_job(12, 4).await;

    // The next draft contains the correction: 100 seconds at 1 cent, plus 10 % tax.
    let expected = ["2025-10 compute 1.00", "2025-10 tax 0.10"];
    let draft = operator.invoice("2025-11").await;
    assert_eq!((corrections(&draft), &draft["total"]), (expected.map(str::to_owned).to_vec(), &json!("1.10")));
    operator.finalize("2025-11", "f2").await;
    let november = operator.invoice("2025-11").await;
    assert_eq!((&november["corrections"], &november["total"]), (&draft["corrections"], &json!("1.10")));
    assert_eq!(
        operator.invoice("2025-12").await["corrections"],
        json!([]),
        "a settled correction is not settled again"
    );

    // Voiding November releases its correction, and the new November invoice settles it.
    operator.void("2025-11", "v2").await;
    assert_eq!(operator.invoice("2025-10").await["adjustments"], json!([]));
    assert_eq!(corrections(&operator.invoice("2025-11").await), expected);
    operator.finalize("2025-11", "f3").await;
    assert_eq!(operator.invoice("2025-11").await["total"], "1.10");

    // Voiding October refunds its total and the correction that November charged for it.
    let id = october["id"].as_str().unwrap();
    operator.void("2025-10", "v1").await;
    let note = operator.invoice(&format!("{id}/credit-note")).await;
    assert_eq!((&note["amount"], &note["invoice_number"], &note["number"]), (&json!("40.96"), &json!(1), &json!(5)));
    operator.finalize("2025-10", "f4").await;
    let again = operator.invoice("2025-10").await;
    assert_eq!((&again["total"], corrections(&again)), (&json!("40.96"), vec![]));

    // November's credit note does not refund the correction a second time.
    let november = operator.invoice("2025-11").await["id"].as_str().unwrap().to_owned();
    operator.void("2025-11", "v3").await;
    assert_eq!(operator.invoice(&format!("{november}/credit-note")).await["amount"], "0.00");

    // The invoice list counts booked adjustments.
    let listed = async || {
        let list = operator.billing.get_json("invoices", "").await;
        let adjustments =
            |item: &Value| (item["month"].as_str() == Some("2025-10")).then(|| item["adjustments"].as_i64());
        let mut counts: Vec<_> = list["items"].as_array().unwrap().iter().filter_map(adjustments).collect();
        counts.sort_unstable();
        (counts == [Some(0), Some(2)]).then_some(())
    };
    operator.billing.service.eventually(listed).await;
    operator.billing.service.close().await;
}

#[tokio::test]
async fn minimum_absorbs_no_correction_and_is_due_once() {
    let operator = Operator { billing: october_customer().await };
    let mut minimum = team_plan("0.01");
    minimum["minimum"] = json!("37");
    operator.billing.assign_plan(&minimum).await;
    operator.finalize("2025-10", "f1").await;
    let october = operator.invoice("2025-10").await;
    assert_eq!(
        (&october["subtotal"], &october["minimum_true_up"], &october["total"]),
        (&json!("36.24"), &json!("0.76"), &json!("40.70"))
    );

    // 1 EUR more lifts October to 24 cents above its minimum: the true-up of 0.76 EUR is refunded. November's minimum of
    // 37 EUR is due in full, independent of the correction.
    operator.publish_october_job(12, 4).await;
    let november = operator.invoice("2025-11").await;
    let expected = ["2025-10 compute 1.00", "2025-10 minimum_true_up -0.76", "2025-10 tax 0.02"];
    assert_eq!(corrections(&november), expected);
    assert_eq!(
        (&november["minimum_true_up"], &november["tax"], &november["total"]),
        (&json!("37.00"), &json!("3.70"), &json!("40.96"))
    );

    // A later discount does not apply to October.
    operator.billing.post_account("discount", &json!({ "percent": "50", "reason": "a friend" })).await.is(200);
    assert_eq!(corrections(&operator.invoice("2025-11").await), expected);
    operator.billing.service.close().await;
}

#[tokio::test]
async fn void_invoice_and_credit_note_are_read_by_invoice_id() {
    let operator = Operator { billing: october_customer().await };
    operator.billing.assign_plan(&team_plan("0.01")).await;
    operator.finalize("2025-10", "f1").await;
    let finalized = operator.invoice("2025-10").await;
    let id = finalized["id"].as_str().unwrap();
    let get = async |resource: &str, query: &str| {
        operator.billing.service.get(operator.billing.path(resource, query)).by(&operator.billing.viewer).send().await
    };
    get(&format!("invoices/{id}/credit-note"), "").await.problem(404);
    operator.void("2025-10", "v1").await;
    let void = operator.invoice(id).await;
    assert_eq!(
        (&void["status"], &void["credit_note"], &void["total"]),
        (&json!("void"), &json!(2), &finalized["total"])
    );
    assert_eq!(operator.invoice("2025-10").await["status"], "draft", "the month addresses the next draft");
    let explained = operator.billing.get_json(&format!("invoices/{id}/explanation"), "").await;
    assert_eq!((&explained["status"], &explained["unexplained"]), (&json!("void"), &json!([])));
    let page = get(&format!("invoices/{id}"), "format=html").await.expect(200);
    assert!(String::from_utf8_lossy(&page.bytes).contains("Reversed by credit note 2."));

    let note = operator.invoice(&format!("{id}/credit-note")).await;
    assert_eq!(
        (&note["number"], &note["amount"], &note["reason"]),
        (&json!(2), &json!("39.86"), &json!("wrong <address>"))
    );
    let csv = get(&format!("invoices/{id}/credit-note"), "format=csv").await.expect(200);
    assert!(String::from_utf8_lossy(&csv.bytes).ends_with("\r\n2,1,2025-10,wrong <address>,39.86,EUR\r\n"));
    let html = get(&format!("invoices/{id}/credit-note"), "format=html").await.expect(200);
    assert!(String::from_utf8_lossy(&html.bytes).contains("wrong &lt;address&gt;"));
    get(&format!("invoices/{id}/credit-note"), "format=pdf").await.problem(422);
    get(&format!("invoices/{}", Uuid::now_v7()), "").await.problem(404);

    let other = Caller::key(Uuid::now_v7(), Uuid::now_v7(), http_kit::Role::Owner);
    let theirs = format!("/api/v1/organizations/{}/invoices/{id}", other.organization.unwrap());
    operator.billing.service.get(theirs).by(&other).send().await.problem(404);
    operator.billing.service.close().await;
}

#[tokio::test]
async fn correction_is_explained_down_to_its_events() {
    let (operator, finalized_at) = settle_late_job().await;

    let november = operator.billing.get_json("invoices/2025-11/explanation", "").await;
    let sum = |name: &str| {
        let sums = november["sums"].as_array().unwrap();
        sums.iter().find(|sum| sum["what"] == name).unwrap()["amount"].clone()
    };
    assert_eq!(
        (sum("corrections"), sum("total"), &november["unexplained"]),
        (json!("1.10"), json!("1.10"), &json!([]))
    );
    let correction = &november["corrections"][0];
    assert_eq!((&correction["meter"], &correction["amount"]), (&json!("compute"), &json!("1.00")));
    let get = async |path: String| {
        operator.billing.service.get(path).by(&operator.billing.viewer).send().await.expect(200).json()
    };
    let path = correction["explanation"].as_str().unwrap();
    let corrected = get(path.to_owned()).await;
    assert_eq!(
        (&corrected["unexplained"][0]["metered"], &corrected["unexplained"][0]["amount"]),
        (&json!("-100000"), &json!("-1.00"))
    );
    let late: Vec<_> = corrected["days"].as_array().unwrap().iter().filter(|day| day["late_run_ms"] != "0").collect();
    assert_eq!((late.len(), &late[0]["date"], &late[0]["late_run_ms"]), (1, &json!("2025-10-05"), &json!("100000")));
    let day = get(format!("{path}&date=2025-10-05")).await;
    let started = &day["intervals"]["ran"][0]["started"];
    assert!(started["recorded_at"].as_str().unwrap().parse::<Timestamp>().unwrap() > finalized_at, "{day}");
    operator.billing.service.close().await;
}

#[tokio::test]
async fn focus_export_of_finalized_months_equals_invoices() {
    let (operator, _) = settle_late_job().await;
    let mut sum = bigdecimal::BigDecimal::from(0);
    for (from, to) in [("2025-10-01", "2025-11-01"), ("2025-11-01", "2025-12-01")] {
        let query = format!("from={from}T00:00:00Z&to={to}T00:00:00Z&format=focus");
        let request = operator.billing.service.get(operator.billing.path("usage/rows", &query));
        let answer = request.by(&operator.billing.viewer).send().await.expect(200);
        for row in std::str::from_utf8(&answer.bytes).unwrap().trim_end().split("\r\n").skip(1) {
            sum += row.split(',').next().unwrap().parse::<bigdecimal::BigDecimal>().unwrap();
        }
    }
    assert_eq!(sum.normalized().to_string(), "40.96", "both months, with the late job counted once");
    operator.billing.service.close().await;
}
