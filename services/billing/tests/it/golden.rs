//! The kept cases: documents in, and what must come out of the program, to the last digit.

use std::{fs, path::Path};

use serde_json::Value;

use crate::rate_command::{rate, rate_file};

/// What is expected must be there exactly; there may be more.
pub(crate) fn compare(expected: &Value, found: &Value, path: &str, compared: &mut usize) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, expected) in expected {
                let path = format!("{path}/{name}");
                compare(expected, found.get(name).unwrap_or_else(|| panic!("{path} is missing")), &path, compared);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "{path}: {found:?}");
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(expected, found, &format!("{path}/{index}"), compared);
            }
        }
        _ => {
            assert_eq!(expected, found, "{path}");
            *compared += 1;
        }
    }
}

fn check(case: &str, values: usize) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let document = cases.join(format!("{case}.json"));
    let expected = fs::read_to_string(cases.join(format!("{case}.expected.json"))).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let found = rate_file(&document).answer();
    let mut compared = 0;
    compare(&expected, &found, "", &mut compared);
    assert_eq!(compared, values, "values compared");
    assert_eq!(rate(&fs::read_to_string(&document).unwrap()).answer(), found, "from standard input");
}

#[test]
fn a_long_day_in_autumn() {
    check("autumn-day", 25);
}

#[test]
fn an_invoice_from_usage_to_the_amount_due() {
    check("invoice", 25);
}

#[test]
fn a_file_that_two_jobs_share() {
    check("shared-file", 9);
}
