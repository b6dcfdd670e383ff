//! No event says who somebody is.
//!
//! Events are kept for ever, so what identifies a person is in one only as an `epoch::personal::Sealed` field, whose key can be
//! destroyed. A field whose name is one that personal data go by is sealed (its schema says `"personal": "sealed"` and is
//! `bytes`), or is exempt here, with the reason.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::catalog;

/// Words in the names of fields that personal data, or texts in which people write them, go by.
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

/// Fields that go by such a name and identify nobody.
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

const ABOUT_MONEY: &str = "an operator's words for an invoice, about an organization's account";
const OF_THE_ORGANIZATION: &str = "what an organization calls a thing of its own, shown to its members only";
const WHY_A_JOB_ENDED: &str = "what became of a job";
const AN_ORGANIZATION: &str = "an organization is no person";
const A_PROGRAM: &str = "what a program is told; the data it works on come in files, which can be deleted";
const A_PRODUCT: &str = "about a plan that is sold, the same for all";

/// The fields of a record and of those within it, by the place they have.
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

/// Whether it could hold a text: numbers and choices identify nobody, and an id says who somebody is only together with the
/// table of users, whose rows can be deleted.
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

/// Fields that look like personal data and aren't sealed.
fn open_fields(event: &str, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    fields(event, schema, &mut found);
    let open = found.into_iter().filter(|(_, field)| looks_personal(field) && !is_sealed(field));
    open.map(|(place, _)| place).collect()
}

#[test]
fn what_looks_like_personal_data_is_sealed_or_exempt_with_a_reason() {
    let mut open = BTreeSet::new();
    for file in catalog::files() {
        let schema: Value = serde_json::from_str(&file.text).unwrap();
        open.extend(open_fields(&format!("{}.{}", file.path.aggregate, file.path.event), &schema));
    }
    let exempt: BTreeSet<String> = EXEMPT.iter().map(|(place, _)| (*place).to_owned()).collect();
    assert!(EXEMPT.iter().all(|(_, reason)| !reason.is_empty()));
    let readable: Vec<_> = open.difference(&exempt).collect();
    assert!(readable.is_empty(), "seal these (epoch::personal), or say here why not: {readable:?}");
    let gone: Vec<_> = exempt.difference(&open).collect();
    assert!(gone.is_empty(), "exempt without need: {gone:?}");
}

#[test]
fn each_way_to_hide_a_name_is_looked_at() {
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
    assert_eq!(open_fields("e", &schema), expected);
}
