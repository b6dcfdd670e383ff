//! At-least-once delivery, and events with invalid or extreme content.

use contracts::job::{FileRole, JobFilesLinked};
use serde_json::{Value, json};

use crate::support::{AUTUMN_QUERY, Billing, id};

#[tokio::test]
async fn redelivered_event_counts_once() {
    let billing = Billing::start().await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_000)).await;
    billing.file(id(2), "2025-10-26T10:00:00Z", billing.part(0, 7)).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(None)).await;
    billing.job(id(11), "2025-10-26T10:00:03Z", billing.job_succeeded()).await;
    billing.wait_until_applied(3, 2).await;
    let once = billing.get_json("usage", AUTUMN_QUERY).await;
    let rows = count_rows(&billing).await;
    assert_eq!(rows, (3, 1));

    // The bus keeps order: when the last event is applied, the redelivered events before it have been handled.
    for _ in 0..3 {
        billing.service.republish().await;
    }
    billing.file(id(3), "2025-10-27T10:00:00Z", billing.part(0, 1)).await;
    billing.job(id(12), "2025-10-27T10:00:00Z", billing.job_started(None)).await;
    billing.wait_until_applied(4, 3).await;
    let again: Value = billing.get_json("usage", AUTUMN_QUERY).await;
    assert_eq!(again, once);
    assert_eq!(count_rows(&billing).await, (rows.0 + 1, rows.1 + 1));
    billing.service.close().await;
}

#[tokio::test]
async fn negative_size_holds_back_its_file_only() {
    let billing = Billing::start().await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, -5)).await;
    billing.file(id(2), "2025-10-26T10:00:00Z", billing.part(0, 7)).await;
    // 7 bytes for 13.25 hours.
    billing.get_until("usage", AUTUMN_QUERY, "/storage/byte_ms", &(7 * 47_700_000).to_string()).await;
    let parked =
        "select count(*) from cursors where subscription = 'storage-changes' and aggregate_id = $1 and version = 0";
    let held_back = async || {
        let count: i64 = sqlx::query_scalar(parked).bind(id(1)).fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(held_back).await;
    assert_eq!(count_rows(&billing).await, (1, 0));
    billing.service.close().await;
}

#[tokio::test]
async fn extreme_sizes_and_unknown_files_are_counted() {
    let billing = Billing::start().await;
    let organization_id = billing.organization;
    for number in 1..=2 {
        billing.file(id(number), "2025-10-26T10:00:00Z", billing.part(0, i64::MAX)).await;
    }
    billing.file(id(3), "2025-10-26T10:00:00Z", billing.deleted(5)).await;
    billing.file(id(4), "1969-12-31T23:59:59.999Z", billing.part(0, 1)).await;
    let links = JobFilesLinked { organization_id, file_ids: vec![id(99)], role: FileRole::Output };
    billing.job(id(11), "2025-10-26T10:00:00Z", links).await;
    billing.wait_until_applied(4, 1).await;
    let usage = billing.get_json("usage", AUTUMN_QUERY).await;
    let (day, since) = (90_900_000_i128, 47_700_000_i128);
    let expected = (2 * i128::from(i64::MAX) - 5) * since + day;
    assert_eq!(usage["storage"]["byte_ms"], expected.to_string());
    assert_eq!(usage["storage"]["flags"], json!([{ "flag": "negative_level", "id": id(3) }]));
    assert_eq!(usage["storage"]["files"].as_array().map(Vec::len), Some(4));
    assert_eq!(usage["storage"]["files"][2]["byte_ms"], (-5 * since).to_string());
    let rows = billing.get_json("usage/rows", &format!("{AUTUMN_QUERY}&group_by=job&every=period")).await;
    assert_eq!(rows["rows"][0]["byte_ms"], expected.to_string(), "an unknown file adds no shared usage");
    assert_eq!(rows["rows"].as_array().map(Vec::len), Some(1));
    billing.service.close().await;
}

/// Counts the rows of `storage_changes` and `runs`.
async fn count_rows(billing: &Billing) -> (i64, i64) {
    let query = "select (select count(*) from storage_changes), (select count(*) from runs)";
    sqlx::query_as(query).fetch_one(&billing.service.pool).await.unwrap()
}
