//! What is charged in all, whatever is heard late, frozen, undone and asked for again.

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

use crate::{
    accounts::{customer, plan},
    support::{Billing, id},
};

/// Something happens to one of three months.
#[derive(Debug, Clone)]
enum Happening {
    /// It is heard what the month comes to, in cents.
    Heard(usize, i64),
    Finalized(usize),
    Voided(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..3_usize, 0..1_000_i64).prop_map(|(month, cents)| Happening::Heard(month, cents)),
        3 => (0..3_usize).prop_map(Happening::Finalized),
        2 => (0..3_usize).prop_map(Happening::Voided),
    ]
}

fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents.into(), "EUR".parse().unwrap())
}

fn read(text: &str) -> Amount {
    Amount::parse(text, "EUR".parse().unwrap()).unwrap()
}

/// A customer's invoices, and what the customer was charged and given back in all.
struct Books {
    invoices: BTreeMap<Uuid, InvoiceState>,
    /// The one of each month that counts.
    counting: BTreeMap<usize, Uuid>,
    known: [i64; 3],
    charged: Amount,
    number: i64,
}

impl Books {
    fn new() -> Self {
        let (invoices, counting) = (BTreeMap::new(), BTreeMap::new());
        Self { invoices, counting, known: [0; 3], charged: cents(0), number: 0 }
    }

    fn tell(&mut self, id: Uuid, command: &InvoiceCommand) -> Vec<InvoiceEvent> {
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
        if self.counting.contains_key(&month) {
            return;
        }
        let id = Uuid::now_v7();
        self.tell(
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
        for (of, invoice) in self.counting.clone() {
            let adjust = InvoiceCommand::Adjust { lines: self.lines(of), settled_in: id, reason: "late".into() };
            for event in self.tell(invoice, &adjust) {
                let InvoiceEvent::AdjustmentBooked(AdjustmentBooked { meter, plan, plan_version, amount, .. }) = event
                else {
                    panic!("{event:?}")
                };
                let month = of.to_string();
                corrections.push(Correction { invoice_id: invoice, month, meter, plan, plan_version, amount });
            }
        }
        let own = cents(self.known[month]);
        let total = corrections.iter().fold(own.clone(), |sum, correction| sum.plus(&read(&correction.amount)));
        self.number += 1;
        let zero = || "0.00".to_owned();
        self.tell(
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
                    amount: own.to_string(),
                }],
                corrections,
                days: vec![],
                rounding: "0".into(),
                subtotal: own.to_string(),
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
        self.counting.insert(month, id);
    }

    fn void(&mut self, month: usize) {
        let Some(id) = self.counting.remove(&month) else { return };
        let corrections = self.invoices[&id].finalized().unwrap().corrections.clone();
        let mut void = Vec::new();
        for correction in corrections {
            if self.invoices[&correction.invoice_id].voided().is_some() {
                void.push(correction.invoice_id);
            } else {
                self.tell(correction.invoice_id, &InvoiceCommand::Release { settled_in: id });
            }
        }
        self.number += 1;
        let void = InvoiceCommand::Void { reason: "wrong".into(), credit_note: self.number, void };
        for event in self.tell(id, &void) {
            let InvoiceEvent::InvoiceVoided(voided) = event else { panic!("{event:?}") };
            self.charged = self.charged.minus(&read(&voided.amount.unwrap()));
        }
    }
}

proptest! {
    /// The rule that [`billing::invoicing::ledger::Ledger`] follows: adjustments of all that counts go with what is finalized, and what was
    /// settled with what is void is released.
    #[test]
    fn what_is_charged_in_all_is_what_the_months_that_count_come_to(happenings in vec(happening(), 1..30)) {
        let mut books = Books::new();
        for happening in happenings {
            match happening {
                Happening::Heard(month, cents) => books.known[month] = cents,
                Happening::Finalized(month) => books.finalize(month),
                Happening::Voided(month) => books.void(month),
            }
        }
        (0..3).for_each(|month| books.void(month));
        prop_assert_eq!(&books.charged, &cents(0), "when nothing counts, nothing is charged");
        (0..3).for_each(|month| books.finalize(month));
        let known: i64 = books.known.iter().sum();
        prop_assert_eq!(&books.charged, &cents(known));
    }

    /// The same without undoing everything first: whatever was finalized last has settled all.
    #[test]
    fn what_was_finalized_last_has_settled_everything(happenings in vec(happening(), 1..30)) {
        let mut books = Books::new();
        for happening in happenings {
            let before = books.number;
            match happening {
                Happening::Heard(month, cents) => books.known[month] = cents,
                Happening::Finalized(month) => books.finalize(month),
                Happening::Voided(month) => books.void(month),
            }
            if matches!(happening, Happening::Finalized(_)) && books.number > before {
                let known: i64 = books.counting.keys().map(|month| books.known[*month]).sum();
                prop_assert_eq!(&books.charged, &cents(known));
            }
        }
    }
}

struct Operator {
    billing: Billing,
}

impl Operator {
    async fn asks(&self, what: &str, key: &str, body: &Value) -> Value {
        let path = format!("/api/v1/admin/organizations/{}/invoices/{what}", self.billing.organization);
        let request = self.billing.service.post(path).by(&Caller::operator()).header("idempotency-key", key);
        request.json(body).send().await.expect(200).json()
    }

    async fn finalizes(&self, month: &str, key: &str) -> Value {
        self.asks(&format!("{month}/finalize"), key, &json!(null)).await
    }

    async fn voids(&self, month: &str, key: &str) -> Value {
        self.asks(&format!("{month}/void"), key, &json!({ "reason": "wrong <address>" })).await
    }

    async fn invoice(&self, which: &str) -> Value {
        self.billing.ask(&format!("invoices/{which}"), "").await
    }

    /// A job of 100 seconds on a day of October; all events of jobs so far are heard.
    async fn hears_of_a_job(&self, job: u128, events: i64) {
        self.billing.job(id(job), "2025-10-05T08:00:00Z", self.billing.job_started(None)).await;
        self.billing.job(id(job), "2025-10-05T08:01:40Z", self.billing.job_succeeded()).await;
        self.billing.caught_up(2, events).await;
    }
}

/// October is frozen, then a job of it is heard of, which November settles. Says when October was frozen.
async fn heard_late() -> (Operator, Timestamp) {
    let operator = Operator { billing: customer().await };
    operator.billing.assigned(&plan("0.01")).await;
    operator.finalizes("2025-10", "f1").await;
    let explained = operator.billing.ask("invoices/2025-10/explanation", "").await;
    let frozen_at: Timestamp = explained["known_at"].as_str().unwrap().parse().unwrap();
    operator.billing.service.eventually(async || (Timestamp::now() > frozen_at).then_some(())).await;
    operator.hears_of_a_job(12, 4).await;
    operator.finalizes("2025-11", "f2").await;
    (operator, frozen_at)
}

fn corrections(invoice: &Value) -> Vec<String> {
    let told = |one: &Value| format!("{} {} {}", one["month"], one["meter"], one["amount"]).replace('"', "");
    invoice["corrections"].as_array().unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn a_request_that_comes_again_after_a_void_does_nothing() {
    let operator = Operator { billing: customer().await };
    operator.billing.assigned(&plan("0.01")).await;
    operator.billing.account("credits", &json!({ "amount": "10", "reason": "welcome" })).await.is(200);
    let first = operator.finalizes("2025-10", "f1").await;
    let path = format!("/api/v1/admin/organizations/{}/invoices/2025-10/void", operator.billing.organization);
    let stale = operator.billing.service.post(path).by(&Caller::operator()).header("if-match", "\"99\"");
    stale.json(&json!({ "reason": "unseen" })).send().await.problem(412);
    let void = operator.voids("2025-10", "v1").await;
    assert_eq!(operator.finalizes("2025-10", "f1").await["version"], first["version"], "answered as the first time");
    assert_eq!(operator.invoice("2025-10").await["status"], "draft", "and nothing is frozen by it");
    assert_eq!(operator.billing.ask("account", "").await["credit"], "10.00");

    operator.finalizes("2025-10", "f2").await;
    assert_eq!(operator.voids("2025-10", "v1").await["version"], void["version"]);
    let invoice = operator.invoice("2025-10").await;
    assert_eq!((&invoice["status"], &invoice["number"]), (&json!("finalized"), &json!(3)), "no number was lost");
    assert_eq!(operator.billing.ask("account", "").await["credit"], "0.00", "what the invoice used up is used up");
    operator.finalizes("2025-11", "f3").await;
    assert_eq!(operator.invoice("2025-11").await["number"], 4);
    operator.billing.service.close().await;
}

#[tokio::test]
async fn corrections_are_drafted_settled_released_and_given_back_once() {
    let operator = Operator { billing: customer().await };
    operator.billing.assigned(&plan("0.01")).await;
    operator.finalizes("2025-10", "f1").await;
    let october = operator.invoice("2025-10").await;
    assert_eq!(october["total"], "39.86");
    operator.hears_of_a_job(12, 4).await;

    // What the next invoice will settle stands in its draft: a second costs a cent, and ten percent tax.
    let expected = ["2025-10 compute 1.00", "2025-10 tax 0.10"];
    let draft = operator.invoice("2025-11").await;
    assert_eq!((corrections(&draft), &draft["total"]), (expected.map(str::to_owned).to_vec(), &json!("1.10")));
    operator.finalizes("2025-11", "f2").await;
    let november = operator.invoice("2025-11").await;
    assert_eq!((&november["corrections"], &november["total"]), (&draft["corrections"], &json!("1.10")));
    assert_eq!(operator.invoice("2025-12").await["corrections"], json!([]), "what was settled isn't settled again");

    // November is undone: its correction is open again, and the next November settles it.
    operator.voids("2025-11", "v2").await;
    assert_eq!(operator.invoice("2025-10").await["adjustments"], json!([]));
    assert_eq!(corrections(&operator.invoice("2025-11").await), expected);
    operator.finalizes("2025-11", "f3").await;
    assert_eq!(operator.invoice("2025-11").await["total"], "1.10");

    // October is undone: its credit note gives back what was charged for it with November, too.
    let id = october["id"].as_str().unwrap();
    operator.voids("2025-10", "v1").await;
    let note = operator.invoice(&format!("{id}/credit-note")).await;
    assert_eq!((&note["amount"], &note["invoice_number"], &note["number"]), (&json!("40.96"), &json!(1), &json!(5)));
    operator.finalizes("2025-10", "f4").await;
    let again = operator.invoice("2025-10").await;
    assert_eq!((&again["total"], corrections(&again)), (&json!("40.96"), vec![]));

    // November's credit note doesn't give back again what October's did.
    let november = operator.invoice("2025-11").await["id"].as_str().unwrap().to_owned();
    operator.voids("2025-11", "v3").await;
    assert_eq!(operator.invoice(&format!("{november}/credit-note")).await["amount"], "0.00");

    // Lists count the adjustments that are booked.
    let listed = async || {
        let list = operator.billing.ask("invoices", "").await;
        let adjustments =
            |item: &Value| (item["month"].as_str() == Some("2025-10")).then(|| item["adjustments"].as_i64());
        let mut told: Vec<_> = list["items"].as_array().unwrap().iter().filter_map(adjustments).collect();
        told.sort_unstable();
        (told == [Some(0), Some(2)]).then_some(())
    };
    operator.billing.service.eventually(listed).await;
    operator.billing.service.close().await;
}

#[tokio::test]
async fn a_minimum_neither_swallows_a_correction_nor_is_due_twice() {
    let operator = Operator { billing: customer().await };
    let mut minimum = plan("0.01");
    minimum["minimum"] = json!("37");
    operator.billing.assigned(&minimum).await;
    operator.finalizes("2025-10", "f1").await;
    let october = operator.invoice("2025-10").await;
    assert_eq!(
        (&october["subtotal"], &october["minimum_true_up"], &october["total"]),
        (&json!("36.24"), &json!("0.76"), &json!("40.70"))
    );

    // A euro more in October lifts it above the minimum by 24 cents; November's own minimum has nothing to do with it.
    operator.hears_of_a_job(12, 4).await;
    let november = operator.invoice("2025-11").await;
    let expected = ["2025-10 compute 1.00", "2025-10 minimum_true_up -0.76", "2025-10 tax 0.02"];
    assert_eq!(corrections(&november), expected);
    assert_eq!(
        (&november["minimum_true_up"], &november["tax"], &november["total"]),
        (&json!("37.00"), &json!("3.70"), &json!("40.96"))
    );

    // Another discount later is none of October's.
    operator.billing.account("discount", &json!({ "percent": "50", "reason": "a friend" })).await.is(200);
    assert_eq!(corrections(&operator.invoice("2025-11").await), expected);
    operator.billing.service.close().await;
}

#[tokio::test]
async fn void_invoices_and_credit_notes_can_be_read_by_their_own() {
    let operator = Operator { billing: customer().await };
    operator.billing.assigned(&plan("0.01")).await;
    operator.finalizes("2025-10", "f1").await;
    let frozen = operator.invoice("2025-10").await;
    let id = frozen["id"].as_str().unwrap();
    let get = async |what: &str, query: &str| {
        operator.billing.service.get(operator.billing.path(what, query)).by(&operator.billing.viewer).send().await
    };
    get(&format!("invoices/{id}/credit-note"), "").await.problem(404);
    operator.voids("2025-10", "v1").await;
    let void = operator.invoice(id).await;
    assert_eq!((&void["status"], &void["credit_note"], &void["total"]), (&json!("void"), &json!(2), &frozen["total"]));
    assert_eq!(operator.invoice("2025-10").await["status"], "draft", "by its month the one that would be next");
    let explained = operator.billing.ask(&format!("invoices/{id}/explanation"), "").await;
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
async fn a_correction_leads_to_the_events_that_made_it() {
    let (operator, frozen_at) = heard_late().await;

    let november = operator.billing.ask("invoices/2025-11/explanation", "").await;
    let sum = |what: &str| {
        let sums = november["sums"].as_array().unwrap();
        sums.iter().find(|sum| sum["what"] == what).unwrap()["amount"].clone()
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
    assert!(started["recorded_at"].as_str().unwrap().parse::<Timestamp>().unwrap() > frozen_at, "{day}");
    operator.billing.service.close().await;
}

#[tokio::test]
async fn a_frozen_month_in_focus_is_what_was_frozen() {
    let (operator, _) = heard_late().await;
    let mut sum = bigdecimal::BigDecimal::from(0);
    for (from, to) in [("2025-10-01", "2025-11-01"), ("2025-11-01", "2025-12-01")] {
        let query = format!("from={from}T00:00:00Z&to={to}T00:00:00Z&format=focus");
        let request = operator.billing.service.get(operator.billing.path("usage/rows", &query));
        let answer = request.by(&operator.billing.viewer).send().await.expect(200);
        for row in std::str::from_utf8(&answer.bytes).unwrap().trim_end().split("\r\n").skip(1) {
            sum += row.split(',').next().unwrap().parse::<bigdecimal::BigDecimal>().unwrap();
        }
    }
    assert_eq!(sum.normalized().to_string(), "40.96", "both months, and what came late once");
    operator.billing.service.close().await;
}
