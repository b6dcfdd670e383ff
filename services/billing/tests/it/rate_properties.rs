//! Properties of `billing rate` that hold for every document.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use rating::calculator;
use serde_json::{Value, json};

use crate::{rate_command::document, support::number};

/// An instant of two days, by quarter hours: few enough that events coincide.
fn at(quarters: u32) -> String {
    let (day, minutes) = (1 + quarters / 96, quarters % 96 * 15);
    format!("2025-06-{day:02}T{:02}:{:02}:00.007Z", minutes / 60, minutes % 60)
}

fn any_event() -> impl Strategy<Value = Value> {
    let (name, kind) = (0..4_u8, 0..7_u8);
    (kind, name.clone(), name, 0..192_u32, 0..192_u32, 0..1_000_000_000_u32, 0..3_i8).prop_map(
        |(kind, file, job, occurred, late, bytes, seq)| {
            let (file, job) = (format!("file-{file}"), format!("job-{job}"));
            let mut event = match kind {
                0 => json!({ "type": "FileStored", "file": file, "bytes": bytes }),
                1 => json!({ "type": "FileDeleted", "file": file }),
                2 => json!({ "type": "FileLinked", "file": file, "job": job }),
                3 => json!({ "type": "FileUnlinked", "file": file, "job": job }),
                4 => json!({ "type": "JobCreated", "job": job, "user": format!("user-{}", bytes % 3) }),
                5 => json!({ "type": "JobStarted", "job": job, "user": format!("user-{}", bytes % 3) }),
                _ => json!({ "type": "JobCompleted", "job": job }),
            };
            event["occurred_at"] = json!(at(occurred));
            event["recorded_at"] = json!(at((occurred + late).min(191)));
            event["seq"] = json!(seq);
            event
        },
    )
}

fn any_events() -> impl Strategy<Value = Vec<Value>> {
    vec(any_event(), 0..40).prop_map(|mut events| {
        for (index, event) in events.iter_mut().enumerate() {
            event["id"] = json!(format!("event-{index}"));
        }
        events
    })
}

fn more(start: u32, length: u32, as_of: u32) -> Value {
    let tiers = json!([{ "up_to": "2", "unit_price": "0.07" }, { "up_to": null, "unit_price": "0.013" }]);
    let compute =
        json!({ "meter": "compute", "unit": "s", "model": "package", "package_size": "60", "package_price": "0.003" });
    let plan = |version: u32| {
        let storage = json!({ "meter": "storage", "unit": "GB.h", "model": "graduated", "tiers": tiers });
        let split = if version == 1 { "split" } else { "unshared_only" };
        json!({ "id": "p", "version": version, "currency": "EUR", "charges": [storage, compute], "split": split })
    };
    json!({
        "period": { "start": at(start), "end": at((start + length).min(191)) },
        "as_of": at(as_of),
        "time_zone": "Asia/Kathmandu",
        "plans": [plan(1), plan(2)],
        "subscription": [
            { "from": "2025-01-01T00:00:00Z", "plan": "p", "version": 1 },
            { "from": "2025-06-01T17:00:00Z", "plan": "p", "version": 2 },
        ],
        "adjustments": { "discount_percent": "3", "minimum": "0.50", "tax_percent": "21", "credit": "1" },
    })
}

fn calculate_document(events: &[Value], more: &Value) -> Value {
    let document = document(json!(events), more.clone());
    serde_json::to_value(calculator::calculate(document.to_string().as_bytes()).unwrap()).unwrap()
}

fn sum(list: &Value, name: &str) -> i128 {
    list.as_array().unwrap().iter().map(|item| number(&item[name])).sum()
}

/// Converts an amount in EUR to cents.
fn cents(amount: &Value) -> i128 {
    amount.as_str().unwrap().replace('.', "").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn result_ignores_event_order_and_duplicates(
        (events, shuffled) in any_events().prop_flat_map(|events| {
            let again: Vec<_> = events.iter().chain(events.iter().step_by(3)).cloned().collect();
            (Just(events), Just(again).prop_shuffle())
        }),
        start in 0..150_u32, length in 0..100_u32, as_of in 0..192_u32,
    ) {
        let more = more(start, length, as_of);
        prop_assert_eq!(calculate_document(&events, &more), calculate_document(&shuffled, &more));
    }

    #[test]
    fn totals_equal_the_sums_of_their_parts(
        events in any_events(), start in 0..150_u32, length in 0..100_u32, as_of in 0..192_u32,
    ) {
        let result = calculate_document(&events, &more(start, length, as_of));
        let (storage, compute) = (&result["storage"], &result["compute"]);
        prop_assert_eq!(sum(&storage["days"], "byte_ms"), number(&storage["byte_ms"]));
        prop_assert_eq!(sum(&storage["files"], "byte_ms"), number(&storage["byte_ms"]));
        for file in storage["files"].as_array().unwrap() {
            let of_jobs = sum(&file["jobs"], "byte_ms");
            prop_assert_eq!(of_jobs + number(&file["unattributed_byte_ms"]), number(&file["byte_ms"]));
        }
        for list in ["days", "jobs", "users"] {
            prop_assert_eq!(sum(&compute[list], "run_ms"), number(&compute["run_ms"]));
        }
        let invoice = &result["invoice"];
        if !invoice.is_null() {
            let lines: i128 = invoice["lines"].as_array().unwrap().iter().map(|line| cents(&line["amount"])).sum();
            prop_assert_eq!(lines, cents(&invoice["subtotal"]));
            let of = |name: &str| cents(&invoice[name]);
            prop_assert_eq!(of("subtotal") - of("discount") + of("minimum_true_up") + of("tax"), of("total"));
            prop_assert_eq!(of("total") - of("credit_applied"), of("amount_due"));
        }
    }

    #[test]
    fn known_at_reproduces_the_result_before_late_events(
        events in any_events(), start in 0..150_u32, length in 0..100_u32, known_at in 0..192_u32,
    ) {
        let mut more = more(start, length, 191);
        let known: Vec<_> =
            events.iter().filter(|event| event["recorded_at"].as_str() <= Some(at(known_at).as_str())).cloned().collect();
        let earlier = calculate_document(&known, &more);
        more["known_at"] = json!(at(known_at));
        prop_assert_eq!(calculate_document(&events, &more), earlier);
    }

    #[test]
    fn adjacent_periods_sum_to_the_whole(
        events in any_events(), start in 0..100_u32, first in 0..45_u32, second in 0..45_u32, as_of in 0..192_u32,
    ) {
        // Keyed by file and job, by file for unattributed usage, and by meter in all.
        let usage = |lengths: &[(u32, u32)]| {
            let mut sums = BTreeMap::new();
            for (start, length) in lengths {
                let result = calculate_document(&events, &more(*start, *length, as_of));
                let (storage, compute) = (&result["storage"], &result["compute"]);
                let mut add = |key: [&Value; 2], byte_ms: &Value| {
                    *sums.entry(key.map(Value::to_string)).or_insert(0) += number(byte_ms);
                };
                add([&json!("storage"), &Value::Null], &storage["byte_ms"]);
                add([&json!("compute"), &Value::Null], &compute["run_ms"]);
                for file in storage["files"].as_array().unwrap() {
                    add([&file["file"], &Value::Null], &file["unattributed_byte_ms"]);
                    for job in file["jobs"].as_array().unwrap() {
                        add([&file["file"], &job["job"]], &job["byte_ms"]);
                    }
                }
            }
            sums
        };
        prop_assert_eq!(usage(&[(start, first), (start + first, second)]), usage(&[(start, first + second)]));
    }
}
