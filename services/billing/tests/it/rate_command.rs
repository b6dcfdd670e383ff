//! `billing rate`, run as a program: usage and costs of documents.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// The output of a run of the program.
pub(crate) struct RateOutput {
    output: Output,
}

impl RateOutput {
    pub(crate) fn json(&self) -> Value {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.success(), "{errors}");
        assert_eq!(errors, "");
        serde_json::from_slice(&self.output.stdout).unwrap()
    }

    /// Returns the single error line of a refused document.
    pub(crate) fn refusal(&self) -> String {
        let out = String::from_utf8_lossy(&self.output.stdout);
        assert_eq!((self.output.status.code(), &*out), (Some(2), ""));
        let errors = String::from_utf8(self.output.stderr.clone()).unwrap();
        let line = errors.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        line.to_owned()
    }
}

fn billing(input: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
    command.args(["rate", "--input", input]);
    command
}

pub(crate) fn rate_file(document: &Path) -> RateOutput {
    RateOutput { output: billing(document.to_str().unwrap()).output().unwrap() }
}

/// Passes the document on standard input.
pub(crate) fn rate(document: &str) -> RateOutput {
    let mut command = billing("-");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let document = document.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(document.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    RateOutput { output }
}

/// A document about 2025-06-01 with these events, as of the end of the day. `more` adds or replaces fields.
pub(crate) fn document(events: Value, more: Value) -> Value {
    let mut document = json!({
        "as_of": "2025-06-02T00:00:00Z",
        "period": { "start": "2025-06-01T00:00:00Z", "end": "2025-06-02T00:00:00Z" },
        "events": events,
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

fn rate_events(events: Value, more: Value) -> Value {
    rate(&document(events, more).to_string()).json()
}

/// An event at a time of 2025-06-01.
pub(crate) fn event(id: &str, time: &str, kind: &str, fields: Value) -> Value {
    let mut event = json!({ "id": id, "type": kind, "occurred_at": format!("2025-06-01T{time}Z") });
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn flat(meter: &str, unit: &str, unit_price: &str) -> Value {
    json!({ "meter": meter, "unit": unit, "model": "flat", "unit_price": unit_price })
}

fn subscribed(currency: &str, charges: Value) -> Value {
    json!({
        "plans": [{ "id": "p", "version": 1, "currency": currency, "charges": charges }],
        "subscription": [{ "from": "2020-01-01T00:00:00Z", "plan": "p", "version": 1 }],
    })
}

/// A job that runs for this many seconds from 08:00.
fn run(seconds: u32) -> Value {
    let (hours, minutes, rest) = (8 + seconds / 3_600, seconds / 60 % 60, seconds % 60);
    json!([
        event("s", "08:00:00", "JobStarted", json!({ "job": "j", "user": "u" })),
        event("c", &format!("{hours:02}:{minutes:02}:{rest:02}"), "JobCompleted", json!({ "job": "j" })),
    ])
}

#[test]
fn usage_is_zero_without_events() {
    let empty = rate_events(json!([]), json!({}));
    assert_eq!(empty["storage"]["byte_ms"], "0");
    assert_eq!(empty["storage"]["days"][0]["date"], "2025-06-01");
    assert_eq!((&empty["compute"]["jobs"], &empty["invoice"]), (&json!([]), &Value::Null));
    let due = rate_events(json!([]), {
        let mut more = subscribed("EUR", json!([flat("compute", "s", "1")]));
        more["adjustments"] = json!({ "minimum": "5", "tax_percent": "20" });
        more
    });
    assert_eq!((&due["invoice"]["lines"], &due["invoice"]["amount_due"]), (&json!([]), &json!("6.00")));
}

#[test]
fn period_includes_its_start_and_excludes_its_end() {
    let events = json!([
        event("1", "00:00:00", "FileStored", json!({ "file": "whole", "bytes": 1 })),
        { "id": "2", "type": "FileStored", "file": "before", "bytes": 1, "occurred_at": "2025-05-31T23:59:59.999Z" },
        event("3", "00:00:00", "FileDeleted", json!({ "file": "before" })),
        { "id": "4", "type": "FileStored", "file": "after", "bytes": 1, "occurred_at": "2025-06-02T00:00:00Z" },
        { "id": "5", "type": "FileStored", "file": "last", "bytes": 1, "occurred_at": "2025-06-01T23:59:59.999Z" },
    ]);
    let storage = rate_events(events, json!({ "as_of": "2025-06-03T00:00:00Z" }))["storage"].clone();
    let files: Vec<_> =
        storage["files"].as_array().unwrap().iter().map(|file| (&file["file"], &file["byte_ms"])).collect();
    assert_eq!(files, [(&json!("last"), &json!("1")), (&json!("whole"), &json!("86400000"))]);
    assert_eq!((&storage["byte_ms"], &storage["provisional"]), (&json!("86400001"), &json!(false)));
}

#[test]
fn simultaneous_events_apply_by_seq_then_id() {
    let stored = |id: &str, seq: i64, bytes: i64| {
        event(id, "12:00:00", "FileStored", json!({ "file": "f", "bytes": bytes, "seq": seq }))
    };
    let byte_ms = |events| rate_events(events, json!({}))["storage"]["byte_ms"].clone();
    assert_eq!(byte_ms(json!([stored("a", 2, 5), stored("b", 1, 7)])), "216000000");
    assert_eq!(byte_ms(json!([stored("b", 0, 7), stored("a", 0, 5)])), "302400000");
    assert_eq!(byte_ms(json!([stored("a", -1, 5), stored("b", -2, 7)])), "216000000");
}

#[test]
fn known_at_hides_events_recorded_later() {
    let mut late = event("2", "06:00:00", "FileDeleted", json!({ "file": "f" }));
    late["recorded_at"] = json!("2025-06-01T20:00:00Z");
    let events = json!([event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1 })), late]);
    let byte_ms =
        |known_at: &str| rate_events(events.clone(), json!({ "known_at": known_at }))["storage"]["byte_ms"].clone();
    assert_eq!(byte_ms("2025-06-01T19:59:59.999Z"), "86400000");
    assert_eq!(byte_ms("2025-06-01T20:00:00Z"), "21600000");
    assert_eq!(rate_events(events, json!({ "known_at": "2025-05-31T00:00:00Z" }))["storage"]["byte_ms"], "0");
}

#[test]
fn repeated_event_counts_once_from_its_first_recording() {
    let stored = event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1 }));
    let mut again = stored.clone();
    again["recorded_at"] = json!("2025-06-01T20:00:00Z");
    for events in [json!([stored, again]), json!([again, stored])] {
        assert_eq!(
            rate_events(events, json!({ "known_at": "2025-06-01T10:00:00Z" }))["storage"]["byte_ms"],
            "86400000"
        );
    }
}

#[test]
fn links_are_accepted_without_file_and_in_any_order() {
    let link = |id: &str, time: &str, kind: &str, job: &str| event(id, time, kind, json!({ "job": job, "file": "f" }));
    let events = json!([
        link("1", "00:00:00", "FileLinked", "a"),
        event("2", "01:00:00", "FileStored", json!({ "file": "f", "bytes": 3 })),
        link("3", "01:30:00", "FileLinked", "a"),
        link("4", "02:00:00", "FileUnlinked", "never"),
        event("5", "03:00:00", "FileDeleted", json!({ "file": "f" })),
        link("6", "03:30:00", "FileLinked", "b"),
        event("7", "04:00:00", "FileStored", json!({ "file": "f", "bytes": 5 })),
        link("8", "05:00:00", "FileUnlinked", "a"),
        link("9", "06:00:00", "FileUnlinked", "b"),
        link("10", "07:00:00", "FileLinked", "c"),
        event("11", "08:00:00", "FileDeleted", json!({ "file": "f" })),
        event("12", "08:00:00", "FileLinked", json!({ "job": "d", "file": "unknown" })),
    ]);
    let storage = rate_events(events, json!({}))["storage"].clone();
    let hour = 3_600_000_i64;
    let share = |job: &str, byte_ms: i64| json!({ "job": job, "byte_ms": byte_ms.to_string() });
    assert_eq!(
        storage["files"],
        json!([{
            "file": "f",
            "byte_ms": (3 * 2 * hour + 5 * 4 * hour).to_string(),
            "unattributed_byte_ms": (5 * hour).to_string(),
            "jobs": [
                share("a", 6 * hour + 5 * hour / 2),
                share("b", 5 * hour / 2 + 5 * hour),
                share("c", 5 * hour),
            ],
        }])
    );
    assert_eq!(storage["flags"], json!([]));
}

#[test]
fn anomalies_are_listed_by_id() {
    let events = json!([
        event("1", "01:00:00", "FileDeleted", json!({ "file": "unknown" })),
        event("2", "01:00:00", "FileStored", json!({ "file": "a", "bytes": 1 })),
        event("3", "02:00:00", "FileDeleted", json!({ "file": "a" })),
        event("4", "03:00:00", "FileDeleted", json!({ "file": "a" })),
        event("5", "10:00:00", "JobStarted", json!({ "job": "z-backwards", "user": "u" })),
        event("6", "09:00:00", "JobCompleted", json!({ "job": "z-backwards" })),
        event("7", "09:00:00", "JobCompleted", json!({ "job": "b-without" })),
    ]);
    let anomalies = rate_events(events, json!({}));
    let flag = |flag: &str, id: &str| json!({ "flag": flag, "id": id });
    assert_eq!(anomalies["storage"]["flags"], json!([flag("negative_level", "a"), flag("negative_level", "unknown")]));
    assert_eq!(anomalies["storage"]["byte_ms"], "3600000");
    let expected = [flag("completed_without_start", "b-without"), flag("completed_before_started", "z-backwards")];
    assert_eq!((&anomalies["compute"]["flags"], &anomalies["compute"]["run_ms"]), (&json!(expected), &json!("0")));
}

#[test]
fn repeated_job_run_is_listed_by_user() {
    let events = json!([
        event("1", "01:00:00", "JobStarted", json!({ "job": "j", "user": "v" })),
        event("2", "01:00:05", "JobCompleted", json!({ "job": "j" })),
        event("3", "23:59:58", "JobStarted", json!({ "job": "j", "user": "u" })),
    ]);
    let compute = rate_events(events, json!({}))["compute"].clone();
    assert_eq!(
        compute["jobs"],
        json!([
            { "job": "j", "user": "u", "run_ms": "2000" },
            { "job": "j", "user": "v", "run_ms": "5000" },
        ])
    );
    assert_eq!((&compute["provisional"], &compute["days"][0]["run_ms"]), (&json!(true), &json!("7000")));
}

#[test]
fn days_follow_the_time_zone() {
    let events =
        json!([{ "id": "1", "type": "FileStored", "file": "f", "bytes": 1, "occurred_at": "2020-01-01T00:00:00Z" }]);
    let days = |zone: &str, start: &str, end: &str| {
        let period = json!({ "start": start, "end": end });
        let more = json!({ "time_zone": zone, "period": period, "as_of": "2026-01-01T00:00:00Z" });
        let days = rate_events(events.clone(), more)["storage"]["days"].clone();
        let days = days.as_array().unwrap().iter().map(|day| {
            let hours = day["byte_ms"].as_str().unwrap().parse::<i64>().unwrap() / 900_000;
            (day["date"].as_str().unwrap().to_owned(), day["start"].as_str().unwrap().to_owned(), hours)
        });
        days.collect::<Vec<_>>()
    };
    let day = |date: &str, start: &str, quarters| (date.to_owned(), start.to_owned(), quarters);
    assert_eq!(
        days("Asia/Kolkata", "2025-06-01T00:00:00Z", "2025-06-02T00:00:00Z"),
        [day("2025-06-01", "2025-06-01T00:00:00Z", 74), day("2025-06-02", "2025-06-01T18:30:00Z", 22),]
    );
    assert_eq!(
        days("Europe/Madrid", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00.900Z")[..1],
        [day("2025-03-30", "2025-03-29T23:00:00Z", 92),]
    );
}

#[test]
fn amounts_have_the_digits_of_their_currency() {
    let amount = |currency: &str, price: &str| {
        rate_events(run(1), subscribed(currency, json!([flat("compute", "s", price)])))["invoice"]["total"].clone()
    };
    assert_eq!(
        (amount("JPY", "0.5"), amount("KWD", "0.0005"), amount("EUR", "0.005")),
        (json!("1"), json!("0.001"), json!("0.01"))
    );
    assert_eq!(amount("EUR", "99999999999999999999.004999999999999999"), "99999999999999999999.00");
}

#[test]
fn plan_change_carries_the_volume_over() {
    let graduated = |first: &str, then: &str| {
        json!([{
            "meter": "compute", "unit": "s", "model": "graduated",
            "tiers": [{ "up_to": "10", "unit_price": first, "flat_fee": "1" }, { "up_to": null, "unit_price": then, "flat_fee": "2" }],
        }])
    };
    let volume = json!([{
        "meter": "compute", "unit": "s", "model": "volume",
        "tiers": [{ "up_to": "10", "unit_price": "1" }, { "up_to": null, "unit_price": "0.1" }],
    }]);
    let package = json!([{ "meter": "compute", "unit": "s", "model": "package", "free": "4", "package_size": "10", "package_price": "7" }]);
    // The job runs for 8 seconds before the plan change and 8 seconds after it.
    let amounts = |charges: Value| {
        let more = json!({
            "plans": [
                { "id": "p", "version": 1, "currency": "EUR", "charges": graduated("1", "0.5") },
                { "id": "p", "version": 2, "currency": "EUR", "charges": charges },
            ],
            "subscription": [
                { "from": "2025-06-01T08:00:08Z", "plan": "p", "version": 2 },
                { "from": "2025-01-01T00:00:00Z", "plan": "p", "version": 1 },
            ],
        });
        let invoice = rate_events(run(16), more)["invoice"].clone();
        let lines = invoice["lines"].as_array().unwrap().iter();
        let amounts: Vec<_> = lines.map(|line| line["amount"].as_str().unwrap().to_owned()).collect();
        amounts.join(" ")
    };
    // P₁(8) = 8 + 1; P₂(16) − P₂(8) = (10·3 + 1 + 6·2 + 2) − (8·3 + 1).
    assert_eq!(amounts(graduated("3", "2")), "9.00 20.00");
    // 16·0.1 − 8·1: under the new plan, 8 more seconds make all 16 cheaper.
    assert_eq!(amounts(volume), "9.00 -6.40");
    // P₂(16) − P₂(8): two packages minus one.
    assert_eq!(amounts(package), "9.00 7.00");
    assert_eq!(amounts(json!([flat("compute", "s", "0.25")])), "9.00 2.00");
}

#[test]
fn resumed_plan_version_makes_one_line() {
    let plan = |version: u32, price: &str| json!({ "id": "p", "version": version, "currency": "EUR", "charges": [flat("compute", "s", price)] });
    let from =
        |time: &str, version: u32| json!({ "from": format!("2025-06-01T{time}Z"), "plan": "p", "version": version });
    let more = json!({
        "plans": [plan(1, "1"), plan(2, "10")],
        "subscription": [from("08:00:01", 1), from("08:00:02", 2), from("08:00:04", 1)],
    });
    let invoice = rate_events(run(10), more)["invoice"].clone();
    let lines: Vec<_> = invoice["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (&line["plan_version"], &line["quantity"], &line["amount"]))
        .collect();
    assert_eq!(lines, [(&json!(1), &json!("7"), &json!("7.00")), (&json!(2), &json!("2"), &json!("20.00"))]);
    assert_eq!(invoice["unrated"]["run_ms"], "1000", "the second before any plan applies");
}

#[test]
fn discount_minimum_tax_and_credit_apply_in_order() {
    let cases = [
        (json!({ "discount_percent": "100", "minimum": "3", "tax_percent": "10" }), "10.00 3.00 0.30 3.30 0.00 3.30"),
        (json!({ "discount_percent": "0.05" }), "0.01 0.00 0.00 9.99 0.00 9.99"),
        (json!({ "minimum": "10.00", "credit": "25" }), "0.00 0.00 0.00 10.00 10.00 0.00"),
        (json!({ "minimum": 12, "credit": "0.01" }), "0.00 2.00 0.00 12.00 0.01 11.99"),
    ];
    for (adjustments, expected) in cases {
        let mut more = subscribed("EUR", json!([flat("compute", "s", "1")]));
        more["adjustments"] = adjustments;
        let invoice = rate_events(run(10), more)["invoice"].clone();
        let names = ["discount", "minimum_true_up", "tax", "total", "credit_applied", "amount_due"];
        let amounts: Vec<_> = names.iter().map(|name| invoice[name].as_str().unwrap()).collect();
        assert_eq!(amounts.join(" "), expected);
    }
}

#[test]
fn gibibytes_and_rounding_are_shown() {
    let events = json!([event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1_u64 << 30 }))]);
    let invoice =
        rate_events(events, subscribed("EUR", json!([flat("storage", "GiB.h", "0.0002")])))["invoice"].clone();
    let line = &invoice["lines"][0];
    assert_eq!((&line["quantity"], &line["unit"], &line["amount"]), (&json!("24"), &json!("GiB.h"), &json!("0.00")));
    assert_eq!((&line["exact_amount"], &invoice["rounding"]), (&json!("0.0048"), &json!("-0.0048")));
}

#[test]
fn unshared_only_plan_leaves_shared_files_unattributed() {
    let linked = |id: &str, time: &str, job: &str| event(id, time, "FileLinked", json!({ "job": job, "file": "f" }));
    let events = json!([
        event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1 })),
        linked("2", "00:00:00", "a"),
        linked("3", "12:00:00", "b"),
        event("4", "00:00:00", "JobCreated", json!({ "job": "a", "user": "u" })),
        event("5", "12:00:00", "JobCreated", json!({ "job": "b", "user": "v" })),
    ]);
    let mut more = subscribed("EUR", json!([flat("storage", "GB.h", "1")]));
    let split = rate_events(events.clone(), more.clone());
    more["plans"][0]["split"] = json!("unshared_only");
    let unshared = rate_events(events, more);
    assert_eq!(split["storage"]["files"][0]["unattributed_byte_ms"], "0");
    assert_eq!(unshared["storage"]["files"][0]["unattributed_byte_ms"], "43200000");
    assert_eq!(unshared["storage"]["files"][0]["jobs"], json!([{ "job": "a", "byte_ms": "43200000" }]));
    assert_eq!(
        (&split["invoice"], &split["storage"]["byte_ms"]),
        (&unshared["invoice"], &unshared["storage"]["byte_ms"])
    );
}

#[test]
fn job_belongs_to_its_creator_or_to_no_known_user() {
    let unattributed = |users: Value, more: Value| {
        let mut events = vec![event("f", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1 }))];
        for job in ["a", "b"] {
            events.push(event(&format!("l{job}"), "00:00:00", "FileLinked", json!({ "job": job, "file": "f" })));
        }
        events.extend(users.as_array().unwrap().iter().cloned());
        let mut document_fields = subscribed("EUR", json!([]));
        document_fields["plans"][0]["split"] = json!("unshared_only");
        for (name, value) in more.as_object().unwrap() {
            document_fields[name] = value.clone();
        }
        rate_events(json!(events), document_fields)["storage"]["files"][0]["unattributed_byte_ms"].clone()
    };
    let created = |id: &str, time: &str, job: &str, user: Value| {
        event(id, time, "JobCreated", json!({ "job": job, "user": user }))
    };
    let a = created("a", "00:00:00", "a", json!("u"));
    let (all, none) = (json!("86400000"), json!("0"));
    let now = json!({});
    assert_eq!(unattributed(json!([a, created("b", "00:00:00", "b", json!("u"))]), now.clone()), none);
    assert_eq!(unattributed(json!([a, created("b", "00:00:00", "b", json!("v"))]), now.clone()), all);
    assert_eq!(unattributed(json!([]), now.clone()), all, "jobs without a known user count as jobs of different users");
    let without_users = json!([created("a", "00:00:00", "a", Value::Null), created("b", "00:00:00", "b", Value::Null)]);
    assert_eq!(unattributed(without_users, now.clone()), all);
    let started = |job: &str| event(&format!("s{job}"), "00:00:00", "JobStarted", json!({ "job": job, "user": "u" }));
    assert_eq!(
        unattributed(json!([started("a"), started("b")]), now.clone()),
        all,
        "the user of a run does not matter"
    );
    // A second creation of a job does not change its user.
    let again = json!([a, created("b", "00:00:00", "b", json!("u")), created("c", "01:00:00", "b", json!("v"))]);
    assert_eq!(unattributed(again, now), none);
    // Creations after `as_of`, or recorded after `known_at`, are unknown.
    let late = json!([a, created("b", "06:00:00", "b", json!("u"))]);
    assert_eq!(unattributed(late.clone(), json!({ "as_of": "2025-06-01T05:00:00Z" })), json!("18000000"));
    assert_eq!(unattributed(late.clone(), json!({ "as_of": "2025-06-01T06:00:00Z" })), json!("0"));
    assert_eq!(unattributed(late, json!({ "known_at": "2025-06-01T05:00:00Z" })), all);
}

#[test]
fn sharing_rule_applies_while_its_plan_does() {
    let events = json!([
        event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": 1 })),
        event("2", "00:00:00", "FileLinked", json!({ "job": "a", "file": "f" })),
        event("3", "00:00:00", "FileLinked", json!({ "job": "b", "file": "f" })),
    ]);
    let plan = |version: u32, split: &str| json!({ "id": "p", "version": version, "currency": "EUR", "charges": [], "split": split });
    let more = |hours: [&str; 2]| {
        let term = |from: &str, version: u32| json!({ "from": format!("2025-06-01T{from}:00:00Z"), "plan": "p", "version": version });
        json!({
            "plans": [plan(1, "unshared_only"), plan(2, "split")],
            "subscription": [term(hours[0], 1), term(hours[1], 2)],
        })
    };
    // Before any plan applies, files are shared by the rule `split`.
    for (hours, unattributed) in [(["06", "10"], "14400000"), (["00", "06"], "21600000"), (["10", "06"], "50400000")] {
        let file = rate_events(events.clone(), more(hours))["storage"]["files"][0].clone();
        assert_eq!(file["unattributed_byte_ms"], unattributed, "{hours:?}");
    }
}

#[test]
fn help_lists_the_rate_subcommand() {
    let output = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_billing")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = output(&["--help"]);
    for subcommand in ["serve", "project", "relay", "migrate", "rate"] {
        let listed = |line: &str| line.split_whitespace().next() == Some(subcommand);
        assert!(help.lines().any(listed), "{subcommand} is not in {help}");
    }
    assert!(output(&["rate", "--help"]).contains("--input <FILE|->"));
}
