//! Reconciliation of rollups with recomputation from their events.

use serde_json::Value;
use usage::reconciliation::rollups::check_next;

use crate::{
    reconciliation_report::{damage, differences, report},
    support::{Billing, id, set_rollup_threshold},
};

/// Steps the rollup check, concurrently with the service, until another full round is done. Returns the report.
async fn check_all(billing: &Billing) -> Value {
    let round = report(billing).await["sums"]["round"].as_i64().unwrap();
    loop {
        // Does nothing while the service itself takes a step.
        check_next(&billing.service.pool).await.unwrap();
        let report = report(billing).await;
        if report["sums"]["round"].as_i64().unwrap() >= round + 2 {
            return report;
        }
    }
}

async fn record_usage(billing: &Billing) {
    set_rollup_threshold(&billing.service.pool, 1).await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_500)).await;
    billing.file(id(2), "2025-10-26T10:00:00.123Z", billing.part(0, 77)).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_created()).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(11), "2025-10-26T12:00:00Z", billing.job_succeeded()).await;
    billing.job(id(12), "2025-10-26T12:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-26T11:00:00Z", billing.job_succeeded()).await;
    billing.wait_until_applied(3, 5).await;
}

#[tokio::test]
async fn rollup_check_finds_no_difference_in_intact_tables() {
    let billing = Billing::start().await;
    record_usage(&billing).await;
    let report = check_all(&billing).await;
    assert_eq!((&report["equal"], &report["difference_count"]), (&true.into(), &0.into()), "{report}");
    assert!(
        report["sums"]["rows_compared"].as_i64().unwrap() > 20 && report["sums"]["checks"].as_i64().unwrap() > 0,
        "{report}"
    );
    assert!(report["sums"]["last_check_at"].is_string());
    billing.service.close().await;
}

#[tokio::test]
async fn rollup_check_reports_each_corrupt_row_until_repaired() {
    let billing = Billing::start().await;
    record_usage(&billing).await;
    // Corruption and repair.
    let corruptions = [
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
        ("update metering_files set changes = changes + 1", "update metering_files set changes = changes - 1"),
        (
            "update metering_file_sums set s0 = s0 + 1 where width = 0",
            "update metering_file_sums set s0 = s0 - 1 where width = 0",
        ),
        (
            "update metering_file_sums set bucket = bucket + 1 where width = 3",
            "update metering_file_sums set bucket = bucket - 1 where width = 3",
        ),
        (
            // Rollups of a file with few changes, and none of a file with many.
            "update metering_files set has_sums = not has_sums where not has_sums",
            "update metering_files set has_sums = false where changes = 1",
        ),
        ("update metering_files set lowest = lowest - 1", "update metering_files set lowest = lowest + 1"),
        (
            "update metering_run_sums set bucket = bucket + 1 where scope = 3 and width = 0",
            "update metering_run_sums set bucket = bucket - 1 where scope = 3 and width = 0",
        ),
    ];
    for (corrupt, repair) in corruptions {
        let changed = sqlx::raw_sql(corrupt).execute(&billing.service.pool).await.unwrap().rows_affected();
        assert!(changed > 0, "{corrupt}");
        let report = check_all(&billing).await;
        assert_eq!(report["equal"], false, "{corrupt}: {report}");
        let difference = &report["differences"][0];
        assert_eq!(difference["organization"], billing.organization.to_string());
        assert_ne!(difference["kept"], difference["recomputed"]);
        sqlx::raw_sql(repair).execute(&billing.service.pool).await.unwrap();
        let report = check_all(&billing).await;
        assert_eq!(report["equal"], true, "{repair}: {report}");
    }
    let lost =
        sqlx::raw_sql("delete from metering_run_sums where width = 0").execute(&billing.service.pool).await.unwrap();
    assert!(lost.rows_affected() > 0);
    let report = check_all(&billing).await;
    assert_eq!(report["differences"][0]["kept"], "nothing", "{report}");
    billing.service.close().await;
}

#[tokio::test]
async fn rollup_check_names_each_wrong_machine_type() {
    let billing = Billing::start().await;
    record_usage(&billing).await;
    let fast = contracts::job::JobStarted { machine_type: "fast".into(), ..billing.job_started(None) };
    billing.job(id(13), "2025-10-26T12:00:00Z", fast).await;
    billing.wait_until_applied(3, 6).await;
    assert_eq!(check_all(&billing).await["equal"], true);
    let type_id = async |name: &str| -> String {
        let query = "select machine_type_id($1)::text";
        sqlx::query_scalar(query).bind(name).fetch_one(&billing.service.pool).await.unwrap()
    };
    let (fast, slow) = (type_id("fast").await, type_id("slow").await);
    let unknown = id(77).to_string();
    // Corruption, and for each difference the id, the stored and the recomputed name.
    let corruptions: [(&str, &[[&str; 3]]); 4] = [
        ("update machine_types set name = 'slow' where name = 'fast'", &[[&fast, "slow", "fast"]]),
        ("delete from machine_types where name = 'fast'", &[[&fast, "nothing", "fast"]]),
        ("insert into machine_types values (machine_type_id('slow'), 'slow')", &[[&slow, "slow", "nothing"]]),
        (
            "update machine_types set id = '01990000-0000-7000-8000-00000000004d' where name = 'fast'",
            &[[&unknown, "fast", "nothing"], [&fast, "nothing", "fast"]],
        ),
    ];
    for (corruption, expected) in corruptions {
        damage(&billing, &format!("create table saved as select * from machine_types; {corruption}")).await;
        let report = check_all(&billing).await;
        let differences: Vec<_> = differences(&report, "sums")
            .into_iter()
            .map(|difference| {
                ["place", "kept", "recomputed"].map(|field| difference[field].as_str().unwrap().to_owned())
            })
            .collect();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|[id, stored, recomputed]| {
                [format!("machine_types {id}"), (*stored).to_owned(), (*recomputed).to_owned()]
            })
            .collect();
        expected.sort_unstable();
        assert_eq!(differences, expected, "{corruption}");
        damage(
            &billing,
            "delete from machine_types; insert into machine_types select * from saved; drop table saved; select 1",
        )
        .await;
        assert_eq!(check_all(&billing).await["equal"], true, "{corruption}");
    }
    billing.service.close().await;
}
