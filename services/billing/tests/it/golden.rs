//! The kept cases of metering: events in, and the numbers that must come out, to the last digit.

use std::collections::{BTreeMap, BTreeSet};

use billing::domain::{
    compute::{JobRun, compute_usage},
    days::{days, zone},
    metering::LevelChange,
    quantity::{Quantity, Unit},
    runs::Run,
    span::{Span, Window},
    storage::storage_usage,
};
use epoch::Timestamp;
use serde_json::{Value, json};

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Whole seconds without milliseconds, as the cases write them.
fn shown(at: Timestamp) -> String {
    at.to_string().replace(".000Z", "Z")
}

/// Storage and compute of a case, in the shape of its expectation.
fn metered(case: &Value) -> Value {
    let window = Window {
        period: Span::new(instant(&case["period"]["start"]), instant(&case["period"]["end"])),
        as_of: instant(&case["as_of"]),
    };
    let days = days(window.period, &zone(case["time_zone"].as_str().unwrap_or("UTC")).unwrap()).unwrap();

    let mut events: Vec<&Value> = case["events"].as_array().unwrap().iter().collect();
    events.sort_by_key(|event| (instant(&event["occurred_at"]), text(&event["id"])));
    let mut seen = BTreeSet::new();
    let mut files: BTreeMap<String, Vec<LevelChange>> = BTreeMap::new();
    let mut runs: BTreeMap<String, JobRun<String, String>> = BTreeMap::new();
    for event in events {
        if !seen.insert(text(&event["id"])) {
            continue;
        }
        let at = instant(&event["occurred_at"]);
        match event["type"].as_str().unwrap() {
            kind @ ("FileStored" | "FileDeleted") => {
                let size = if kind == "FileStored" { event["bytes"].as_i64().unwrap() } else { 0 };
                let changes = files.entry(text(&event["file"])).or_default();
                let before: i64 = changes.iter().map(|change| change.delta).sum();
                changes.push(LevelChange { at, delta: size - before });
            }
            "JobStarted" => {
                let run = Run { started_at: Some(at), ended_at: None };
                let (job, user) = (text(&event["job"]), Some(text(&event["user"])));
                runs.insert(job.clone(), JobRun { job, user, run });
            }
            "JobCompleted" => runs.get_mut(event["job"].as_str().unwrap()).unwrap().run.ended_at = Some(at),
            "FileLinked" | "FileUnlinked" => {}
            other => panic!("{other}"),
        }
    }

    let storage = storage_usage(&files, window, &days);
    let runs: Vec<_> = runs.into_values().collect();
    let compute = compute_usage(&runs, window, &days);
    let days: Vec<_> = storage
        .days
        .iter()
        .map(|(day, byte_ms)| {
            let (start, end) = (shown(day.span.start()), shown(day.span.end()));
            json!({ "date": day.date.to_string(), "start": start, "end": end, "byte_ms": byte_ms.to_string() })
        })
        .collect();
    let files: Vec<_> =
        storage.files.iter().map(|(file, byte_ms)| json!({ "file": file, "byte_ms": byte_ms.to_string() })).collect();
    let users: Vec<_> =
        compute.users.iter().map(|(user, run_ms)| json!({ "user": user, "run_ms": run_ms.to_string() })).collect();
    json!({
        "storage": {
            "byte_ms": storage.byte_ms.to_string(),
            "gb_hours": Quantity { metered: storage.byte_ms, unit: Unit::GbHour }.to_string(),
            "provisional": storage.provisional,
            "days": days,
            "files": files,
        },
        "compute": { "run_ms": compute.run_ms.to_string(), "users": users },
    })
}

/// What is expected must be there exactly, but for what this stage doesn't know yet.
fn compare(expected: &Value, metered: &Value, path: &str, compared: &mut usize) {
    match (expected, metered) {
        (Value::Object(expected), Value::Object(metered)) => {
            for (name, expected) in expected {
                match metered.get(name) {
                    Some(metered) => compare(expected, metered, &format!("{path}/{name}"), compared),
                    None => assert!(["invoice", "unattributed_byte_ms", "jobs"].contains(&&**name), "{path}/{name}"),
                }
            }
        }
        (Value::Array(expected), Value::Array(metered)) => {
            assert_eq!(expected.len(), metered.len(), "{path}: {metered:?}");
            for (index, (expected, metered)) in expected.iter().zip(metered).enumerate() {
                compare(expected, metered, &format!("{path}/{index}"), compared);
            }
        }
        _ => {
            assert_eq!(expected, metered, "{path}");
            *compared += 1;
        }
    }
}

fn check(case: &str, expected: &str, values: usize) {
    let (case, expected): (Value, Value) =
        (serde_json::from_str(case).unwrap(), serde_json::from_str(expected).unwrap());
    let mut compared = 0;
    compare(&expected, &metered(&case), "", &mut compared);
    assert_eq!(compared, values, "values compared");
}

#[test]
fn a_long_day_in_autumn() {
    check(include_str!("../golden/autumn-day.json"), include_str!("../golden/autumn-day.expected.json"), 23);
}

#[test]
fn the_usage_behind_an_invoice() {
    check(include_str!("../golden/invoice.json"), include_str!("../golden/invoice.expected.json"), 5);
}

#[test]
fn a_file_that_jobs_share_is_metered_as_one() {
    check(include_str!("../golden/shared-file.json"), include_str!("../golden/shared-file.expected.json"), 4);
}
