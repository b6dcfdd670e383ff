//! Events contain no readable personal data.
//!
//! Events are kept for ever, so data that identifies a person is stored only in `epoch::personal::Sealed` fields, whose key can be
//! destroyed. A field whose name suggests personal data must be sealed (type `bytes` with `"personal": "sealed"`) or be exempt in this
//! file, with a reason.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::catalog;

/// Words in field names that suggest personal data, or free text that may contain it.
const WORDS: [&str; 45] = [
    "actor",
    "address",
    "author",
    "avatar",
    "birth",
    "birthday",
    "by",
    "city",
    "command",
    "comment",
    "contact",
    "customer",
    "description",
    "device",
    "email",
    "fax",
    "first",
    "gender",
    "host",
    "iban",
    "ip",
    "last",
    "login",
    "mail",
    "member",
    "message",
    "mobile",
    "name",
    "nickname",
    "note",
    "owner",
    "passport",
    "person",
    "phone",
    "photo",
    "postcode",
    "reason",
    "recipient",
    "salary",
    "sender",
    "street",
    "surname",
    "title",
    "user",
    "zip",
];

/// Fields with such a word that do not identify a person.
const EXEMPT: [(&str, &str); 18] = [
    ("billing_account.CreditGranted.reason", ABOUT_MONEY),
    ("billing_account.DiscountGranted.reason", ABOUT_MONEY),
    ("file.FileUploadStarted.name", OF_THE_ORGANIZATION),
    ("invoice.AdjustmentBooked.reason", ABOUT_MONEY),
    ("invoice.InvoiceVoided.reason", ABOUT_MONEY),
    ("job.JobCancelled.reason", WHY_A_JOB_ENDED),
    ("job.JobCreated.command", A_PROGRAM),
    ("job.JobCreated.name", OF_THE_ORGANIZATION),
    ("job.JobFailed.reason", WHY_A_JOB_ENDED),
    ("job.JobLost.reason", WHY_A_JOB_ENDED),
    ("job_configuration.JobConfigurationDefined.command", A_PROGRAM),
    ("job_configuration.JobConfigurationDefined.name", OF_THE_ORGANIZATION),
    ("job_configuration.JobConfigurationRevised.command", A_PROGRAM),
    ("job_configuration.JobConfigurationRevised.name", OF_THE_ORGANIZATION),
    ("organization.OrganizationCreated.name", AN_ORGANIZATION),
    ("organization.OrganizationRenamed.name", AN_ORGANIZATION),
    ("plan.PlanPublished.name", A_PRODUCT),
    ("plan.PlanRetired.reason", A_PRODUCT),
];

const ABOUT_MONEY: &str = "an operator's text about an organization's account";
const OF_THE_ORGANIZATION: &str = "a name that an organization chose, visible to its members only";
const WHY_A_JOB_ENDED: &str = "the outcome of a job";
const AN_ORGANIZATION: &str = "an organization is not a person";
const A_PROGRAM: &str = "arguments of a program; its data is in files, which can be deleted";
const A_PRODUCT: &str = "about a plan, the same for all customers";

/// Collects the fields of a record and of its nested records with their paths.
fn fields<'a>(place: &str, node: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match node {
        Value::Array(variants) => variants.iter().for_each(|variant| fields(place, variant, found)),
        Value::Object(_) => {
            for field in node["fields"].as_array().into_iter().flatten() {
                let place = format!("{place}.{}", field["name"].as_str().unwrap_or("?"));
                found.push((place.clone(), field));
                fields(&place, &field["type"], found);
            }
            for inner in ["items", "values", "type"] {
                node.get(inner).into_iter().for_each(|inner| fields(place, inner, found));
            }
        }
        _ => {}
    }
}

/// Returns whether a type can hold text.
///
/// Numbers and enums do not identify a person. An id does so only together with the table of users, whose rows can be deleted.
fn holds_text(node: &Value) -> bool {
    match node {
        Value::String(name) => ["string", "bytes"].contains(&name.as_str()),
        Value::Array(variants) => variants.iter().any(holds_text),
        Value::Object(_) if node["logicalType"].is_string() => false,
        Value::Object(_) => ["type", "items", "values"].iter().any(|inner| node.get(inner).is_some_and(holds_text)),
        _ => false,
    }
}

fn is_sealed(field: &Value) -> bool {
    let bytes = match &field["type"] {
        Value::Array(variants) => variants.iter().all(|variant| variant == "null" || variant == "bytes"),
        other => other == "bytes",
    };
    field["personal"] == "sealed" && bytes
}

fn looks_personal(field: &Value) -> bool {
    let name = field["name"].as_str().unwrap_or_default();
    holds_text(&field["type"]) && name.split('_').any(|word| WORDS.contains(&word))
}

/// Returns the fields whose names suggest personal data and that are not sealed.
fn readable_fields(event: &str, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    fields(event, schema, &mut found);
    let readable = found.into_iter().filter(|(_, field)| looks_personal(field) && !is_sealed(field));
    readable.map(|(place, _)| place).collect()
}

#[test]
fn personal_fields_are_sealed_or_exempt_with_a_reason() {
    let mut readable = BTreeSet::new();
    for file in catalog::files() {
        let schema: Value = serde_json::from_str(&file.text).unwrap();
        readable.extend(readable_fields(&format!("{}.{}", file.path.aggregate, file.path.event), &schema));
    }
    let exempt: BTreeSet<String> = EXEMPT.iter().map(|(place, _)| (*place).to_owned()).collect();
    assert!(EXEMPT.iter().all(|(_, reason)| !reason.is_empty()));
    let unsealed: Vec<_> = readable.difference(&exempt).collect();
    assert!(unsealed.is_empty(), "seal these fields (epoch::personal) or exempt them here with a reason: {unsealed:?}");
    let obsolete: Vec<_> = exempt.difference(&readable).collect();
    assert!(obsolete.is_empty(), "obsolete exemptions: {obsolete:?}");
}

#[test]
fn readable_fields_finds_nested_and_optional_fields() {
    let schema: Value = serde_json::from_str(
        r#"{"type": "record", "name": "MemberInvited", "fields": [
            {"name": "email", "type": "string"},
            {"name": "first_name", "type": ["null", "string"]},
            {"name": "hosts", "type": {"type": "array", "items": {"type": "record", "name": "Host", "fields": [
                {"name": "ip", "type": "bytes"}]}}},
            {"name": "phone", "type": {"type": "map", "values": "string"}},
            {"name": "address", "type": "string", "personal": "sealed"},
            {"name": "surname", "type": "bytes", "personal": "sealed"},
            {"name": "nickname", "type": ["null", "bytes"], "personal": "sealed"},
            {"name": "user_id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "owner", "type": {"type": "enum", "name": "Owner", "symbols": ["YES", "NO"]}},
            {"name": "hostname", "type": "string"}]}"#,
    )
    .unwrap();
    let expected = ["email", "first_name", "hosts.ip", "phone", "address"].map(|field| format!("e.{field}"));
    assert_eq!(readable_fields("e", &schema), expected);
}
