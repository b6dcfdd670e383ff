//! Usage rows, as JSON, CSV and FOCUS CSV.

use contracts::job::{FileRole, JobFilesLinked, JobFilesUnlinked};
use serde_json::{Value, json};

use crate::support::{Billing, id};

const OCTOBER: &str =
    "from=2025-09-30T22:00:00Z&to=2025-10-31T23:00:00Z&time_zone=Europe/Madrid&as_of=2025-11-02T00:00:00Z";

/// Stores 1 GB that two jobs use for a part of the time, and runs one of the jobs.
async fn record_october(billing: &Billing) {
    let organization_id = billing.organization;
    let links = || JobFilesLinked { organization_id, file_ids: vec![id(1)], role: FileRole::Input };
    let unlinks = JobFilesUnlinked { organization_id, file_ids: vec![id(1)], role: FileRole::Input };
    billing.file(id(1), "2025-10-26T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.file(id(1), "2025-10-26T12:00:00Z", billing.deleted(1_000_000_000)).await;
    billing.job(id(11), "2025-10-26T00:00:00Z", billing.job_created()).await;
    billing.job(id(11), "2025-10-26T02:00:00Z", links()).await;
    billing.job(id(11), "2025-10-26T10:00:00Z", unlinks).await;
    billing.job(id(12), "2025-10-26T04:00:00Z", links()).await;
    billing.job(id(12), "2025-10-26T20:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(12), "2025-10-26T23:30:00Z", billing.job_succeeded()).await;
    billing.wait_until_applied(2, 6).await;
    billing.wait_until_linked(6).await;
}

fn cells<'a>(rows: &'a Value, names: &[&str]) -> Vec<Vec<&'a Value>> {
    let rows = rows["rows"].as_array().unwrap();
    rows.iter().map(|row| names.iter().map(|name| &row[*name]).collect()).collect()
}

#[tokio::test]
async fn rows_cover_jobs_and_unattributed_usage() {
    let billing = Billing::start().await;
    record_october(&billing).await;
    let rows = billing.get_json("usage/rows", &format!("{OCTOBER}&group_by=job")).await;
    // 12 hours: 2 unattributed, 2 of the first job alone, 6 shared, and 2 of the second job alone.
    let expected = json!([
        ["2025-10-26", null, "2", "0"],
        ["2025-10-26", id(11), "5", "0"],
        ["2025-10-26", id(12), "5", "10800000"],
        ["2025-10-27", id(12), "0", "1800000"],
    ]);
    assert_eq!(json!(cells(&rows, &["date", "key", "gb_hours", "run_ms"])), expected);
    assert_eq!((&rows["next"], &rows["provisional"]), (&json!(null), &json!(false)));

    let usage = billing.get_json("usage", OCTOBER).await;
    let file = &usage["storage"]["files"][0];
    let share = "18000000000000000";
    assert_eq!(file["unattributed_byte_ms"], "7200000000000000");
    assert_eq!(file["jobs"], json!([{ "job": id(11), "byte_ms": share }, { "job": id(12), "byte_ms": share }]));

    let users = billing.get_json("usage/rows", &format!("{OCTOBER}&group_by=user&every=month")).await;
    let expected = json!([["2025-10", null, "12", "0"], ["2025-10", id(21), "0", "12600000"]]);
    assert_eq!(json!(cells(&users, &["date", "key", "gb_hours", "run_ms"])), expected);
    billing.service.close().await;
}

#[tokio::test]
async fn rows_sum_to_usage_by_hour_day_and_month() {
    let billing = Billing::start().await;
    record_october(&billing).await;
    let whole = billing.get_json("usage", OCTOBER).await;
    for (every, rows) in [("hour", 31 * 24 + 1), ("day", 31), ("month", 1), ("period", 1)] {
        let answer = billing.get_json("usage/rows", &format!("{OCTOBER}&every={every}")).await;
        let found = answer["rows"].as_array().unwrap();
        assert_eq!(found.len(), rows, "{every}");
        let sum = |name: &str| {
            let values = found.iter().map(|row| row[name].as_str().unwrap().parse::<i128>().unwrap());
            values.sum::<i128>().to_string()
        };
        assert_eq!(
            (json!(sum("byte_ms")), json!(sum("run_ms"))),
            (whole["storage"]["byte_ms"].clone(), whole["compute"]["run_ms"].clone())
        );
    }
    billing.service.close().await;
}

#[tokio::test]
async fn rows_are_exported_as_csv_and_focus() {
    let billing = Billing::start().await;
    record_october(&billing).await;
    let get_csv = async |query: &str| {
        let path = billing.path("usage/rows", &format!("{OCTOBER}&{query}"));
        let answer = billing.service.get(path).by(&billing.viewer).send().await.expect(200);
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
        (String::from_utf8(answer.bytes.to_vec()).unwrap(), answer.header("link").to_owned())
    };
    let (csv, link) = get_csv("group_by=job&format=csv").await;
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "date,start,end,job,byte_ms,gb_hours,run_ms");
    assert_eq!(lines[1], "2025-10-26,2025-10-25T22:00:00.000Z,2025-10-26T23:00:00.000Z,,7200000000000000,2,0");
    assert_eq!((lines.len(), lines[5], link.as_str()), (6, "", ""));
    let (_, link) = get_csv("group_by=job&format=csv&limit=1").await;
    assert_eq!(link, format!("<?cursor={}>; rel=\"next\"", id(11)));

    let (focus, link) = get_csv("group_by=job&format=focus").await;
    let lines: Vec<Vec<&str>> = focus.trim_end().split("\r\n").map(|line| line.split(',').collect()).collect();
    assert!(link.is_empty() && lines.iter().all(|cells| cells.len() == lines[0].len()), "{focus}");
    let rows: Vec<Vec<&str>> = lines[1..]
        .iter()
        .map(|cells| {
            let cell = |name: &str| cells[lines[0].iter().position(|column| *column == name).unwrap()];
            let names =
                ["SkuId", "ResourceId", "ChargePeriodStart", "x_MeteredQuantity", "PricingQuantity", "BilledCost"];
            names.map(cell).to_vec()
        })
        .collect();
    let (first, second, unattributed) = (id(11).to_string(), id(12).to_string(), "");
    let (sunday, monday) = ("2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z");
    let expected = [
        ["compute", &second, sunday, "10800000", "10800", "0.54"],
        ["storage", unattributed, sunday, "7200000000000000", "2", "0.0002"],
        ["storage", &first, sunday, "18000000000000000", "5", "0.0005"],
        ["storage", &second, sunday, "18000000000000000", "5", "0.0005"],
        ["compute", &second, monday, "1800000", "1800", "0.09"],
        ["storage", unattributed, "2025-09-30T22:00:00Z", "", "", "-0.0012"],
    ];
    let mut sorted: Vec<_> = rows.clone();
    sorted.sort_by_key(|row| (row[2].to_owned(), row[0].to_owned(), row[1].to_owned()));
    let mut sorted_expected: Vec<_> = expected.iter().map(|row| row.to_vec()).collect();
    sorted_expected.sort_by_key(|row| (row[2].to_owned(), row[0].to_owned(), row[1].to_owned()));
    assert_eq!(sorted, sorted_expected, "{focus}");
    let path = billing.path("usage/rows", &format!("{OCTOBER}&group_by=job&format=focus&cursor={}", id(11)));
    billing.service.get(path).by(&billing.viewer).send().await.problem(422);
    billing.service.close().await;
}

#[tokio::test]
async fn row_pages_join_to_the_full_list() {
    let billing = Billing::start().await;
    for number in 1..=7 {
        billing.file(id(number), "2025-10-26T00:00:00Z", billing.part(0, 1_000)).await;
    }
    billing.wait_until_applied(7, 0).await;
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            billing.get_json("usage/rows", &format!("{OCTOBER}&every=period&group_by=file&limit=3{cursor}")).await;
        keys.extend(page["rows"].as_array().unwrap().iter().map(|row| row["key"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(keys), json!((1..=7).map(id).collect::<Vec<_>>()));
    billing.service.close().await;
}

#[tokio::test]
async fn invalid_or_oversized_row_query_is_refused() {
    let billing = Billing::start().await;
    let cases = [
        ("limit=0", 400),
        ("limit=201", 400),
        ("every=week", 400),
        ("group_by=planet", 400),
        ("cursor=7", 400),
        ("format=xls", 400),
        ("time_zone=Mars/Olympus", 422),
        ("every=hour&group_by=file&limit=200&from=2025-01-01T00:00:00Z&to=2025-03-01T00:00:00Z", 422),
    ];
    for (query, status) in cases {
        let path = billing.path("usage/rows", query);
        billing.service.get(path).by(&billing.viewer).send().await.problem(status);
    }
    billing.service.close().await;
}
