//! A bus that delivers at least once, and events that make no sense.

use serde_json::Value;

use crate::support::{AUTUMN, Billing, id};

#[tokio::test]
async fn what_is_delivered_again_counts_once() {
    let billing = Billing::start().await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_000)).await;
    billing.file(id(2), "2025-10-26T10:00:00Z", billing.part(0, 7)).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(None)).await;
    billing.job(id(11), "2025-10-26T10:00:03Z", billing.job_succeeded()).await;
    billing.caught_up(3, 2).await;
    let once = billing.ask("usage", AUTUMN).await;
    let rows = rows(&billing).await;
    assert_eq!(rows, (3, 1));

    // The bus keeps order, so once the last one is there, what came again before it has been judged.
    for _ in 0..3 {
        billing.service.publish_again().await;
    }
    billing.file(id(3), "2025-10-27T10:00:00Z", billing.part(0, 1)).await;
    billing.job(id(12), "2025-10-27T10:00:00Z", billing.job_started(None)).await;
    billing.caught_up(4, 3).await;
    let again: Value = billing.ask("usage", AUTUMN).await;
    assert_eq!(again, once);
    assert_eq!(self::rows(&billing).await, (rows.0 + 1, rows.1 + 1));
    billing.service.close().await;
}

#[tokio::test]
async fn a_size_below_zero_holds_back_its_file_only() {
    let billing = Billing::start().await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, -5)).await;
    billing.file(id(2), "2025-10-26T10:00:00Z", billing.part(0, 7)).await;
    // 7 bytes for 13 hours and a quarter.
    billing.ask_until("usage", AUTUMN, "/storage/byte_ms", &(7 * 47_700_000).to_string()).await;
    let parked =
        "select count(*) from cursors where subscription = 'storage-changes' and aggregate_id = $1 and version = 0";
    let held_back = async || {
        let count: i64 = sqlx::query_scalar(parked).bind(id(1)).fetch_one(&billing.service.pool).await.unwrap();
        (count == 1).then_some(())
    };
    billing.service.eventually(held_back).await;
    assert_eq!(rows(&billing).await, (1, 0));
    billing.service.close().await;
}

async fn rows(billing: &Billing) -> (i64, i64) {
    let query = "select (select count(*) from storage_changes), (select count(*) from runs)";
    sqlx::query_as(query).fetch_one(&billing.service.pool).await.unwrap()
}
