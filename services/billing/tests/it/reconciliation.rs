//! What is kept, compared with recomputation.

use billing::reconciliation::check_next;
use serde_json::Value;
use service_kit::Caller;

use crate::support::{Billing, id};

const PATH: &str = "/api/v1/admin/metering/reconciliation";

async fn state(billing: &Billing) -> Value {
    billing.service.get(PATH).by(&Caller::operator()).send().await.expect(200).json()
}

/// Takes steps, beside those of the service itself, until all has been looked at once more, from its beginning to its end.
async fn looked_at_all(billing: &Billing) -> Value {
    let round = state(billing).await["sums"]["round"].as_i64().unwrap();
    loop {
        // While the service takes a step itself there is nothing to do.
        check_next(&billing.service.pool).await.unwrap();
        let state = state(billing).await;
        if state["sums"]["round"].as_i64().unwrap() >= round + 2 {
            return state;
        }
    }
}

async fn used(billing: &Billing) {
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_500)).await;
    billing.file(id(2), "2025-10-26T10:00:00.123Z", billing.part(0, 77)).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_created()).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(11), "2025-10-26T12:00:00Z", billing.job_succeeded()).await;
    billing.job(id(12), "2025-10-26T12:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-26T11:00:00Z", billing.job_succeeded()).await;
    billing.caught_up(3, 5).await;
}

#[tokio::test]
async fn finds_nothing_where_nothing_is_wrong() {
    let billing = Billing::start().await;
    used(&billing).await;
    let state = looked_at_all(&billing).await;
    assert_eq!((&state["equal"], &state["difference_count"]), (&true.into(), &0.into()), "{state}");
    assert!(
        state["sums"]["rows_compared"].as_i64().unwrap() > 20 && state["sums"]["checks"].as_i64().unwrap() > 0,
        "{state}"
    );
    assert!(state["sums"]["last_check_at"].is_string());
    billing.service.close().await;
}

#[tokio::test]
async fn finds_every_kind_of_row_that_is_wrong_and_sees_it_put_right() {
    let billing = Billing::start().await;
    used(&billing).await;
    let wrong = [
        (
            "update metering_storage_sums set s1 = s1 + 1 where width = 0",
            "update metering_storage_sums set s1 = s1 - 1 where width = 0",
        ),
        (
            "update metering_storage_sums set s0 = s0 + 1 where width = 1",
            "update metering_storage_sums set s0 = s0 - 1 where width = 1",
        ),
        (
            "update metering_run_sums set s0 = s0 + 1 where scope = 1 and width = 2",
            "update metering_run_sums set s0 = s0 - 1 where scope = 1 and width = 2",
        ),
        (
            "update metering_run_sums set s0 = s0 + 1 where scope = 0 and width = 3",
            "update metering_run_sums set s0 = s0 - 1 where scope = 0 and width = 3",
        ),
        ("update runs set number = number + 100", "update runs set number = number - 100"),
        (
            "update runs set started_recorded_at = started_recorded_at + 1",
            "update runs set started_recorded_at = started_recorded_at - 1",
        ),
        ("update metering_files set s1 = s1 + 1", "update metering_files set s1 = s1 - 1"),
        ("update metering_files set lowest = lowest - 1", "update metering_files set lowest = lowest + 1"),
        (
            "update metering_run_sums set bucket = bucket + 1 where scope = 3 and width = 0",
            "update metering_run_sums set bucket = bucket - 1 where scope = 3 and width = 0",
        ),
    ];
    for (corrupt, repair) in wrong {
        let changed = sqlx::raw_sql(corrupt).execute(&billing.service.pool).await.unwrap().rows_affected();
        assert!(changed > 0, "{corrupt}");
        let state = looked_at_all(&billing).await;
        assert_eq!(state["equal"], false, "{corrupt}: {state}");
        let difference = &state["differences"][0];
        assert_eq!(difference["organization"], billing.organization.to_string());
        assert_ne!(difference["kept"], difference["recomputed"]);
        sqlx::raw_sql(repair).execute(&billing.service.pool).await.unwrap();
        let state = looked_at_all(&billing).await;
        assert_eq!(state["equal"], true, "{repair}: {state}");
    }
    let lost =
        sqlx::raw_sql("delete from metering_run_sums where width = 0").execute(&billing.service.pool).await.unwrap();
    assert!(lost.rows_affected() > 0);
    let state = looked_at_all(&billing).await;
    assert_eq!(state["differences"][0]["kept"], "nothing", "{state}");
    billing.service.close().await;
}

#[tokio::test]
async fn is_for_operators() {
    let billing = Billing::start().await;
    billing.service.get(PATH).by(&billing.viewer).send().await.problem(403);
    billing.service.get(PATH).send().await.problem(401);
    billing.service.close().await;
}
