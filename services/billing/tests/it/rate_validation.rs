//! Documents that `billing rate` refuses, with the place of the error.

use std::path::Path;

use serde_json::{Value, json};

use crate::rate_command::{document, event, rate, rate_file};

fn refusal(events: Value, more: Value) -> String {
    rate(&document(events, more).to_string()).refusal()
}

fn assert_starts_with(refusal: &str, expected: &str) {
    assert!(refusal.starts_with(expected), "{refusal:?} doesn't start with {expected:?}");
}

#[test]
fn invalid_event_is_refused_with_its_place() {
    let valid = || event("0", "00:00:00", "FileDeleted", json!({ "file": "f" }));
    let stored = |bytes: Value| event("1", "00:00:00", "FileStored", json!({ "file": "f", "bytes": bytes }));
    let cases = [
        (stored(json!(-1)), "events[1].bytes: invalid type: integer `-1`, expected a whole number of bytes"),
        (stored(json!("-1")), "events[1].bytes: invalid value"),
        (stored(json!(1.5)), "events[1].bytes: invalid type: floating point `1.5`"),
        (stored(json!(9_223_372_036_854_775_808_u64)), "events[1].bytes: invalid value"),
        (stored(json!(1e30)), "events[1].bytes: invalid type: floating point"),
        (stored(Value::Null), "events[1].bytes: is missing"),
        (event("1", "00:00:00", "FileMoved", json!({})), "events[1].type: unknown type \"FileMoved\""),
        (event("1", "00:00:00", "FileDeleted", json!({})), "events[1].file: is missing"),
        (event("1", "00:00:00", "FileDeleted", json!({ "file": "" })), "events[1].file: is empty"),
        (event("1", "00:00:00", "FileDeleted", json!({ "file": "f".repeat(257) })), "events[1].file: is longer than"),
        (event("1", "00:00:00", "FileDeleted", json!({ "file": "f", "bytes": 1 })), "events[1].bytes: does not belong"),
        (event("1", "00:00:00", "JobStarted", json!({ "job": "j" })), "events[1].user: is missing"),
        (event("1", "00:00:00", "JobCreated", json!({ "user": "u" })), "events[1].job: is missing"),
        (event("1", "00:00:00", "JobCreated", json!({ "job": "j", "user": "" })), "events[1].user: is empty"),
        (event("1", "00:00:00", "JobCreated", json!({ "job": "j", "file": "f" })), "events[1].file: does not belong"),
        (event("1", "00:00:00", "FileDeleted", json!({ "file": "f", "colour": 1 })), "events[1].colour: unknown field"),
        (
            event("1", "00:00:00", "FileDeleted", json!({ "file": "f", "a\nb": 1 })),
            "events[1].a b: unknown field `a b`",
        ),
        (event("1", "25:00:00", "FileDeleted", json!({ "file": "f" })), "events[1].occurred_at: \"2025-06-01T25"),
        (event("1", "00:00:00.0001", "FileDeleted", json!({ "file": "f" })), "events[1].occurred_at: \"2025"),
        (
            event("0", "00:00:01", "FileDeleted", json!({ "file": "f" })),
            "events[1].id: \"0\" is also the id of events[0]",
        ),
        (json!({ "type": "FileDeleted", "file": "f" }), "events[1]: missing field `id`"),
        (json!("FileDeleted"), "events[1]: invalid type"),
    ];
    for (invalid, expected) in cases {
        assert_starts_with(&refusal(json!([valid(), invalid]), json!({})), expected);
    }
}

#[test]
fn invalid_period_or_instant_is_refused_with_its_place() {
    let period = |start: &str, end: &str| json!({ "period": { "start": start, "end": end } });
    let cases = [
        (
            period("2025-06-02T00:00:00Z", "2025-06-01T23:59:59.999Z"),
            "period.end: 2025-06-01T23:59:59.999Z is earlier than",
        ),
        (period("1900-01-01T00:00:00Z", "2025-01-01T00:00:00Z"), "period: is longer than 100 years"),
        (period("9999-12-30T00:00:00Z", "9999-12-30T21:00:00Z"), "period: the period lies outside the calendar"),
        (json!({ "period": {} }), "period: missing field `start`"),
        (json!({ "time_zone": "Europe/Nowhere" }), "time_zone: unknown time zone \"Europe/Nowhere\""),
        (json!({ "time_zone": "+02:00" }), "time_zone: unknown time zone"),
        (json!({ "as_of": "yesterday" }), "as_of: \"yesterday\" is not an RFC 3339 instant"),
        (json!({ "as_of": null }), "as_of: invalid type: null"),
        (json!({ "known_at": 5 }), "known_at: invalid type"),
        (json!({ "asof": "2025-06-01T00:00:00Z" }), "asof: unknown field `asof`"),
        (json!({ "events": {} }), "events: invalid type"),
    ];
    for (more, expected) in cases {
        assert_starts_with(&refusal(json!([]), more), expected);
    }
}

fn plan(currency: &str, charge: Value) -> Value {
    json!({ "plans": [{ "id": "p", "version": 1, "currency": currency, "charges": [charge] }] })
}

fn flat(price: Value) -> Value {
    json!({ "meter": "compute", "unit": "s", "model": "flat", "unit_price": price })
}

#[test]
fn invalid_plan_is_refused_with_its_place() {
    let tiers = |tiers: Value| json!({ "meter": "storage", "unit": "GB.h", "model": "volume", "tiers": tiers });
    let cases = [
        (plan("EURO", flat(json!("1"))), "plans[0].currency: \"EURO\" is not a currency"),
        (plan("EUR", flat(json!("-1"))), "plans[0].charges[0].unit_price: \"-1\" is not a decimal"),
        (plan("EUR", flat(json!(-1))), "plans[0].charges[0].unit_price: invalid type: integer `-1`"),
        (plan("EUR", flat(json!(0.1))), "plans[0].charges[0].unit_price: invalid type: floating point `0.1`"),
        (
            plan("EUR", flat(json!("0.1234567890123456789012345678901234567890"))),
            "plans[0].charges[0].unit_price: \"0.1234567890123456789012345678901234567890\" is not a decimal",
        ),
        (
            plan("EUR", tiers(json!([{ "up_to": "9", "unit_price": "1" }, { "up_to": "8", "unit_price": "1" }]))),
            "plans[0].charges[0].tiers[1].up_to: 8 is not above 9",
        ),
        (plan("EUR", tiers(json!([{ "up_to": "9", "unit_price": "1" }]))), "plans[0].charges[0].tiers: the last tier"),
        (
            plan("EUR", tiers(json!([{ "up_to": null, "unit_price": "1", "fee": "1" }]))),
            "plans[0].charges[0].tiers[0].fee: unknown field",
        ),
        (json!({ "plans": [{ "id": "p", "version": -1, "currency": "EUR", "charges": [] }] }), "plans[0].version: "),
        (
            json!({ "plans": [{ "id": "p", "version": 1, "currency": "EUR", "charges": [], "split": "half" }] }),
            "plans[0].split: unknown rule \"half\"",
        ),
    ];
    for (more, expected) in cases {
        assert_starts_with(&refusal(json!([]), more), expected);
    }
    let mut twice = plan("EUR", flat(json!("1")));
    twice["plans"] = json!([twice["plans"][0], twice["plans"][0]]);
    assert_starts_with(&refusal(json!([]), twice), "plans[1]: version 1 of \"p\" is defined twice");
}

#[test]
fn invalid_subscription_or_adjustment_is_refused() {
    let with = |name: &str, value: Value| {
        let mut more = plan("JPY", flat(json!("1")));
        more["subscription"] = json!([{ "from": "2020-01-01T00:00:00Z", "plan": "p", "version": 1 }]);
        more[name] = value;
        more
    };
    let from = |version: u32| json!({ "from": "2020-01-01T00:00:00Z", "plan": "p", "version": version });
    let cases = [
        (
            with("subscription", json!([from(1), from(2)])),
            "subscription[1].plan: version 2 of plan \"p\" does not exist",
        ),
        (with("plans", json!([])), "subscription[0].plan: version 1 of plan \"p\" does not exist"),
        (with("adjustments", json!({ "discount_percent": "100.1" })), "adjustments.discount_percent: is more than 100"),
        (with("adjustments", json!({ "credit": "-1" })), "adjustments.credit: \"-1\" is not a decimal"),
        (
            with("adjustments", json!({ "minimum": "0.5" })),
            "adjustments.minimum: 0.5 has more than the 0 decimals of JPY",
        ),
        (with("adjustments", json!({ "rebate": "1" })), "adjustments.rebate: unknown field"),
    ];
    for (more, expected) in cases {
        assert_starts_with(&refusal(json!([]), more), expected);
    }
    let mut both = with("adjustments", json!({}));
    let mut other = both["plans"][0].clone();
    (other["version"], other["currency"]) = (json!(2), json!("EUR"));
    both["plans"] = json!([both["plans"][0], other]);
    both["subscription"] = json!([from(1), { "from": "2025-06-01T12:00:00Z", "plan": "p", "version": 2 }]);
    assert_starts_with(
        &refusal(json!([]), both.clone()),
        "subscription: plan p version 2 uses EUR, and an earlier plan of the period uses JPY",
    );
    both["subscription"] = json!([from(1), from(2)]);
    assert_starts_with(&refusal(json!([]), both), "subscription[1].from: another plan applies from the same instant");
}

#[test]
fn malformed_document_is_refused() {
    for (text, expected) in [("", "input: EOF"), ("{", "input: EOF"), ("[]", "input: "), ("{}{}", "input: ")] {
        assert_starts_with(&rate(text).refusal(), expected);
    }
    let valid = document(json!([]), json!({})).to_string();
    assert_starts_with(&rate(&format!("{valid}{{}}")).refusal(), "input: trailing characters");
    assert_starts_with(&rate_file(Path::new("/nowhere/at/all.json")).refusal(), "/nowhere/at/all.json: ");
    assert_starts_with(&rate_file(Path::new("/")).refusal(), "/: ");
}
