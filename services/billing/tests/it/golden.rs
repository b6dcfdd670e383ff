//! Golden cases: documents for `billing rate` with their exact results.

use std::{fs, path::Path};

use serde_json::Value;

use crate::rate_command::{rate, rate_file};

/// Asserts that every expected value is present and equal. The result may contain further fields.
pub(crate) fn compare(expected: &Value, actual: &Value, path: &str, compared: &mut usize) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (name, expected) in expected {
                let path = format!("{path}/{name}");
                compare(expected, actual.get(name).unwrap_or_else(|| panic!("{path} is missing")), &path, compared);
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            assert_eq!(expected.len(), actual.len(), "{path}: {actual:?}");
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(expected, actual, &format!("{path}/{index}"), compared);
            }
        }
        _ => {
            assert_eq!(expected, actual, "{path}");
            *compared += 1;
        }
    }
}

fn check(case: &str, values: usize) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let document = cases.join(format!("{case}.json"));
    let expected = fs::read_to_string(cases.join(format!("{case}.expected.json"))).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let actual = rate_file(&document).json();
    let mut compared = 0;
    compare(&expected, &actual, "", &mut compared);
    assert_eq!(compared, values, "values compared");
    assert_eq!(rate(&fs::read_to_string(&document).unwrap()).json(), actual, "from standard input");
}

#[test]
fn golden_autumn_day_is_reproduced() {
    check("autumn-day", 25);
}

#[test]
fn golden_invoice_is_reproduced() {
    check("invoice", 25);
}

#[test]
fn golden_shared_file_is_reproduced() {
    check("shared-file", 9);
}
