//! The usage API, checked to the byte-millisecond.

use contracts::job::{JobCancelled, JobFailed, JobLost, JobTimedOut};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{self, AUTUMN_QUERY, Billing, id};

const HOUR: i128 = support::HOUR as i128;

/// Records a file uploaded in two parts and deleted, a stored file, an aborted upload, a job that ended and a running job.
async fn record_autumn(billing: &Billing) {
    let (deleted, stored, aborted) = (id(1), id(2), id(3));
    billing.file(deleted, "2025-10-20T00:00:00Z", billing.started()).await;
    billing.file(deleted, "2025-10-20T00:00:00Z", billing.part(0, 600_000_000)).await;
    billing.file(deleted, "2025-10-25T23:00:00Z", billing.part(600_000_000, 400_000_007)).await;
    billing.file(deleted, "2025-10-25T23:00:01Z", billing.completed(1_000_000_007)).await;
    billing.file(deleted, "2025-10-26T20:00:00.001Z", billing.deleted(1_000_000_007)).await;
    billing.file(stored, "2025-10-26T22:59:59.999Z", billing.part(0, 31)).await;
    billing.file(aborted, "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
    billing.file(aborted, "2025-10-26T10:00:00.500Z", billing.aborted(1_000)).await;
    let (ended, running) = (id(11), id(12));
    billing.job(ended, "2025-10-25T12:00:00Z", billing.job_created()).await;
    billing.job(ended, "2025-10-25T12:00:01Z", billing.job_queued()).await;
    billing.job(ended, "2025-10-25T21:59:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(ended, "2025-10-25T22:01:00.250Z", billing.job_succeeded()).await;
    billing.job(running, "2025-10-26T22:59:00Z", billing.job_started(None)).await;
    billing.wait_until_applied(8, 5).await;
}

/// The response entry of a file that no job uses.
fn unshared(file: Uuid, byte_ms: i128) -> Value {
    let byte_ms = byte_ms.to_string();
    json!({ "file": file, "byte_ms": byte_ms, "unattributed_byte_ms": byte_ms, "jobs": [] })
}

#[tokio::test]
async fn usage_is_reported_by_day_file_job_and_user() {
    let billing = Billing::start().await;
    record_autumn(&billing).await;
    let usage = billing.get_json("usage", AUTUMN_QUERY).await;

    let deleted = 600_000_000 * HOUR + 1_000_000_007 * (21 * HOUR + 1);
    let aborted = 1_000 * 500;
    let (stored_first_day, stored_second_day) = (31, 31 * HOUR / 4);
    let byte_ms = deleted + aborted + stored_first_day + stored_second_day;
    let text = |number: i128| number.to_string();
    assert_eq!(
        usage,
        json!({
            "organization": billing.organization,
            "from": "2025-10-25T22:00:00.000Z",
            "to": "2025-10-26T23:30:00.000Z",
            "as_of": "2025-10-26T23:15:00.000Z",
            "known_at": null,
            "time_zone": "Europe/Madrid",
            "storage": {
                "byte_ms": text(byte_ms),
                "gb_hours": "21.600000432666",
                "provisional": true,
                "flags": [],
                "more_flags": false,
                "days": [
                    {
                        "date": "2025-10-26",
                        "start": "2025-10-25T22:00:00.000Z",
                        "end": "2025-10-26T23:00:00.000Z",
                        "byte_ms": text(deleted + aborted + stored_first_day),
                    },
                    {
                        "date": "2025-10-27",
                        "start": "2025-10-26T23:00:00.000Z",
                        "end": "2025-10-26T23:30:00.000Z",
                        "byte_ms": text(stored_second_day),
                    },
                ],
                "files": [
                    unshared(id(1), deleted),
                    unshared(id(2), stored_first_day + stored_second_day),
                    unshared(id(3), aborted),
                ],
                "more_files": false,
            },
            "compute": {
                "run_ms": "1020250",
                "provisional": true,
                "flags": [],
                "more_flags": false,
                "days": [
                    {
                        "date": "2025-10-26",
                        "start": "2025-10-25T22:00:00.000Z",
                        "end": "2025-10-26T23:00:00.000Z",
                        "run_ms": "120250",
                    },
                    {
                        "date": "2025-10-27",
                        "start": "2025-10-26T23:00:00.000Z",
                        "end": "2025-10-26T23:30:00.000Z",
                        "run_ms": "900000",
                    },
                ],
                "jobs": [
                    { "job": id(11), "user": id(21), "run_ms": "60250" },
                    { "job": id(12), "user": null, "run_ms": "960000" },
                ],
                "more_jobs": false,
                "users": [
                    { "user": null, "run_ms": "960000" },
                    { "user": id(21), "run_ms": "60250" },
                ],
                "more_users": false,
            },
        })
    );
    billing.service.close().await;
}

#[tokio::test]
async fn usage_ignores_events_after_as_of() {
    let billing = Billing::start().await;
    record_autumn(&billing).await;
    let query = "from=2025-10-25T22:00:00Z&to=2025-10-26T23:30:00Z&as_of=2025-10-25T22:00:30Z";
    let usage = billing.get_json("usage", query).await;
    let at = |pointer| usage.pointer(pointer).unwrap().clone();
    assert_eq!(at("/storage/byte_ms"), (600_000_000_i64 * 30_000).to_string());
    assert_eq!(at("/storage/files"), json!([unshared(id(1), 18_000_000_000_000)]));
    assert_eq!((at("/storage/provisional"), at("/compute/provisional")), (json!(true), json!(true)));
    assert_eq!(at("/compute/jobs"), json!([{ "job": id(11), "user": id(21), "run_ms": "30000" }]));

    // As of an instant before the period usage is zero, and provisional because a file is stored and a job is running.
    let before = "from=2025-10-26T00:00:00Z&to=2025-10-27T00:00:00Z&as_of=2025-10-25T21:59:30Z";
    let usage = billing.get_json("usage", before).await;
    let at = |pointer| usage.pointer(pointer).unwrap().clone();
    assert_eq!((at("/storage/byte_ms"), at("/storage/provisional")), (json!("0"), json!(true)));
    assert_eq!((at("/compute/run_ms"), at("/compute/provisional")), (json!("0"), json!(true)));
    assert_eq!((at("/storage/files"), at("/compute/jobs")), (json!([]), json!([])));

    // A period that ended before `as_of` is not provisional, although files are stored and jobs run.
    let over = "from=2025-10-26T22:30:00Z&to=2025-10-26T23:00:00Z&as_of=2025-10-27T00:00:00Z";
    let usage = billing.get_json("usage", over).await;
    let at = |pointer| usage.pointer(pointer).unwrap().clone();
    assert_eq!((at("/storage/byte_ms"), at("/storage/provisional")), (json!("31"), json!(false)));
    assert_eq!((at("/compute/run_ms"), at("/compute/provisional")), (json!("60000"), json!(false)));
    billing.service.close().await;
}

#[tokio::test]
async fn late_event_counts_at_its_occurrence() {
    let billing = Billing::start().await;
    let (file, job) = (id(1), id(11));
    billing.file(file, "2025-10-26T10:00:00Z", billing.part(0, 10)).await;
    billing.job(job, "2025-10-26T10:00:00Z", billing.job_started(None)).await;
    billing.wait_until_applied(1, 1).await;
    let query = "from=2025-10-26T00:00:00Z&to=2025-10-27T00:00:00Z&as_of=2025-10-26T12:00:00Z";
    let early = billing.get_json("usage", query).await;
    assert_eq!(early.pointer("/storage/byte_ms").unwrap(), "72000000");
    assert_eq!(early.pointer("/compute/run_ms").unwrap(), "7200000");

    let known_at = epoch::Timestamp::now();
    let later = async || (epoch::Timestamp::now() > known_at).then_some(());
    billing.service.eventually(later).await;

    // The same query after late events have arrived.
    billing.file(id(2), "2025-10-26T09:00:00Z", billing.part(0, 1)).await;
    billing.file(file, "2025-10-26T11:00:00Z", billing.deleted(10)).await;
    billing.job(job, "2025-10-26T11:30:00Z", billing.job_succeeded()).await;
    billing.wait_until_applied(3, 2).await;
    let late = billing.get_json("usage", query).await;
    assert_eq!(late.pointer("/storage/byte_ms").unwrap(), "46800000");
    assert_eq!(late.pointer("/storage/provisional").unwrap(), true);
    assert_eq!(late.pointer("/compute/run_ms").unwrap(), "5400000");
    assert_eq!(late.pointer("/compute/provisional").unwrap(), false);

    // With `known_at` of the first query the response is the first response.
    let mut then = billing.get_json("usage", &format!("{query}&known_at={known_at}")).await;
    assert_eq!(then["known_at"], known_at.to_string());
    then["known_at"] = Value::Null;
    assert_eq!(then, early);
    let unknown = billing.get_json("usage", &format!("{query}&known_at=2025-10-26T09:00:00Z")).await;
    assert_eq!(unknown.pointer("/storage/byte_ms").unwrap(), "0");
    assert_eq!((&unknown["storage"]["files"], &unknown["compute"]["jobs"]), (&json!([]), &json!([])));
    billing.service.close().await;
}

#[tokio::test]
async fn every_kind_of_job_end_ends_its_run() {
    let billing = Billing::start().await;
    let organization_id = billing.organization;
    let reason = || "r".to_owned();
    for number in 1..=5 {
        billing.job(id(number), "2025-10-26T10:00:00Z", billing.job_started(None)).await;
    }
    let end = "2025-10-26T10:00:01Z";
    billing.job(id(1), end, billing.job_succeeded()).await;
    billing.job(id(2), end, JobFailed { organization_id, exit_code: None, reason: reason() }).await;
    billing.job(id(3), end, JobTimedOut { organization_id, timeout_ms: 1 }).await;
    billing.job(id(4), end, JobCancelled { organization_id, reason: reason() }).await;
    billing.job(id(5), end, JobLost { organization_id, reason: reason() }).await;
    // A second end of a run changes nothing, and a new run of the same job counts separately.
    billing.job(id(1), "2025-10-26T10:00:09Z", JobLost { organization_id, reason: reason() }).await;
    billing.job(id(5), "2025-10-26T10:01:00Z", billing.job_started(None)).await;
    billing.job(id(5), "2025-10-26T10:01:02Z", billing.job_started(None)).await;
    billing.job(id(5), "2025-10-26T10:01:05Z", billing.job_succeeded()).await;
    billing.wait_until_applied(0, 14).await;
    let query = "from=2025-10-26T00:00:00Z&to=2025-10-27T00:00:00Z&as_of=2025-10-27T00:00:00Z";
    let usage = billing.get_json("usage", query).await;
    let times: Vec<_> =
        usage["compute"]["jobs"].as_array().unwrap().iter().map(|job| job["run_ms"].as_str().unwrap()).collect();
    assert_eq!(times, ["1000", "1000", "1000", "1000", "6000"]);
    assert_eq!(usage.pointer("/compute/provisional").unwrap(), false);
    billing.service.close().await;
}

#[tokio::test]
async fn anomalies_are_reported_and_still_counted() {
    let billing = Billing::start().await;
    let organization_id = billing.organization;
    let (negative, backwards, without, never_ran) = (id(1), id(11), id(12), id(13));
    billing.file(negative, "2025-10-26T10:00:00Z", billing.part(0, 10)).await;
    billing.file(negative, "2025-10-26T10:00:01Z", billing.deleted(12)).await;
    billing.job(backwards, "2025-10-26T10:00:00Z", billing.job_started(None)).await;
    billing.job(backwards, "2025-10-26T09:59:59Z", billing.job_succeeded()).await;
    billing.job(without, "2025-10-26T10:00:00Z", billing.job_succeeded()).await;
    let lost = JobLost { organization_id, reason: "its machine went away".into() };
    billing.job(never_ran, "2025-10-26T10:00:00Z", lost).await;
    billing.wait_until_applied(2, 4).await;
    let query = "from=2025-10-26T10:00:00Z&to=2025-10-26T10:00:02Z&as_of=2025-10-26T10:00:02Z";
    let usage = billing.get_json("usage", query).await;
    let flag = |flag: &str, id: Uuid| json!({ "flag": flag, "id": id });
    assert_eq!(usage["storage"]["flags"], json!([flag("negative_level", negative)]));
    assert_eq!(usage["storage"]["byte_ms"], (10 * 1_000 - 2 * 1_000).to_string());
    assert_eq!(usage["compute"]["run_ms"], "0");
    assert_eq!(
        usage["compute"]["flags"],
        json!([flag("completed_before_started", backwards), flag("completed_without_start", without)])
    );
    billing.service.close().await;
}

#[tokio::test]
async fn empty_file_uses_no_storage() {
    let billing = Billing::start().await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.started()).await;
    billing.file(id(1), "2025-10-26T10:00:00Z", billing.completed(0)).await;
    billing.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(0)).await;
    billing.wait_until_applied(3, 0).await;
    let usage = billing.get_json("usage", AUTUMN_QUERY).await;
    assert_eq!((&usage["storage"]["byte_ms"], &usage["storage"]["gb_hours"]), (&json!("0"), &json!("0")));
    assert_eq!(usage["storage"]["provisional"], false);
    assert_eq!(usage["storage"]["days"].as_array().map(Vec::len), Some(2));
    billing.service.close().await;
}

#[tokio::test]
async fn usage_defaults_to_the_current_month_to_date() {
    let billing = Billing::start().await;
    let before = epoch::Timestamp::now();
    let usage = billing.get_json("usage", "").await;
    let instant = |name: &str| usage[name].as_str().unwrap().parse::<epoch::Timestamp>().unwrap();
    assert!(instant("as_of") >= before && instant("as_of") <= epoch::Timestamp::now());
    assert_eq!(usage["to"], usage["as_of"]);
    assert!(usage["from"].as_str().unwrap().ends_with("-01T00:00:00.000Z"));
    assert_eq!(usage["time_zone"], "UTC");

    // The response contains all parameters, so that the query can be repeated.
    let text = |name: &str| usage[name].as_str().unwrap().to_owned();
    let query = format!("from={}&to={}&as_of={}&time_zone=UTC", text("from"), text("to"), text("as_of"));
    let again: Value = billing.get_json("usage", &query).await;
    assert_eq!(again, usage);
    billing.service.close().await;
}
