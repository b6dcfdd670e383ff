//! Explanations of invoices: from an amount down to the events that caused it.

use epoch::Timestamp;
use serde_json::{Value, json};

use crate::support::{Billing, id, october_customer, team_plan};

#[tokio::test]
async fn amount_is_explained_down_to_its_events() {
    let billing = Billing::start().await;
    let started = billing.job(id(11), "2025-10-02T08:00:00Z", billing.job_started(None)).await;
    let ended = billing.job(id(11), "2025-10-02T09:00:00Z", billing.job_succeeded()).await;
    let first = billing.file(id(1), "2025-10-01T12:00:00Z", billing.part(0, 600_000_000)).await;
    let second = billing.file(id(1), "2025-10-02T06:00:00Z", billing.part(600_000_000, 400_000_000)).await;
    billing.file(id(1), "2025-10-03T00:00:00Z", billing.deleted(1_000_000_000)).await;
    billing.wait_until_applied(3, 2).await;
    billing.open_account().await;
    billing.assign_plan(&team_plan("0.01")).await;
    let explanation = billing.get_json("invoices/2025-10/explanation", "date=2025-10-02").await;
    assert_eq!((&explanation["status"], &explanation["unexplained"]), (&json!("draft"), &json!(null)));
    assert_eq!(explanation["lines"][1]["tiers"], json!([{ "tier": 0, "quantity": "28.8", "amount": "0.29088" }]));
    assert_eq!(explanation["days"][1]["run_ms"], "3600000");

    // The level at the start of the day leads to an event of the previous day.
    let stored = &explanation["intervals"]["stored"];
    let stored_interval = |index: usize| {
        let interval = &stored[index];
        (interval["start"].clone(), interval["bytes"].clone(), interval["events"][0]["id"].clone())
    };
    assert_eq!(stored_interval(0), (json!("2025-10-02T00:00:00.000Z"), json!("600000000"), json!(first)));
    assert_eq!(stored[0]["events"][0]["occurred_at"], "2025-10-01T12:00:00.000Z");
    assert_eq!(stored_interval(1), (json!("2025-10-02T06:00:00.000Z"), json!("1000000000"), json!(second)));
    let sum = |list: &Value, name: &str| {
        let numbers = list.as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().parse::<i128>().unwrap());
        json!(numbers.sum::<i128>().to_string())
    };
    assert_eq!(sum(stored, "byte_ms"), explanation["days"][1]["byte_ms"], "intervals sum to the day");
    let run = &explanation["intervals"]["ran"][0];
    assert_eq!(
        (&run["started"]["id"], &run["ended"]["id"], &run["run_ms"]),
        (&json!(started), &json!(ended), &json!("3600000"))
    );
    let wrong =
        billing.service.get(billing.path("invoices/2025-10/explanation", "date=2025-11-02")).by(&billing.viewer);
    wrong.send().await.problem(422);
    billing.service.close().await;
}

#[tokio::test]
async fn explanation_is_paginated_for_many_files() {
    let billing = Billing::start().await;
    for number in 1..=101 {
        billing.file(id(number), "2025-10-02T00:00:00Z", billing.part(0, 1_000)).await;
    }
    billing.wait_until_applied(101, 0).await;
    billing.open_account().await;
    let page = async |query: &str| {
        billing.get_json("invoices/2025-10/explanation", &format!("date=2025-10-02{query}")).await["intervals"].clone()
    };
    let first = page("").await;
    assert_eq!((first["stored"].as_array().unwrap().len(), &first["next_file"]), (100, &json!(id(100))));
    let second = page(&format!("&after_file={}", id(100))).await;
    assert_eq!((second["stored"].as_array().unwrap().len(), &second["next_file"]), (1, &json!(null)));
    billing.service.close().await;
}

#[tokio::test]
async fn finalized_invoice_is_explained_as_known_then() {
    let billing = october_customer().await;
    billing.assign_plan(&team_plan("0.01")).await;
    billing.finalize_invoice("2025-10").await;
    let explanation = async |query: &str| billing.get_json("invoices/2025-10/explanation", query).await;
    let before = explanation("").await;
    assert_eq!(
        (&before["status"], &before["subtotal"], &before["unexplained"]),
        (&json!("finalized"), &json!("36.24"), &json!([]))
    );
    let finalized_at: Timestamp = before["known_at"].as_str().unwrap().parse().unwrap();
    billing.service.eventually(async || (Timestamp::now() > finalized_at).then_some(())).await;

    // A late job of 100 seconds arrives.
    billing.job(id(12), "2025-10-05T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(12), "2025-10-05T08:01:40Z", billing.job_succeeded()).await;
    billing.wait_until_applied(2, 4).await;
    let after = explanation("date=2025-10-05").await;
    assert_eq!((&after["lines"], &after["unexplained"]), (&before["lines"], &json!([])));
    assert_eq!(after["intervals"]["ran"], json!([]), "the late job was not known at finalization");
    let now = explanation("date=2025-10-05&known_at=2100-01-01T00:00:00Z").await;
    assert_eq!((&now["subtotal"], &now["intervals"]["ran"][0]["run_ms"]), (&json!("37.24"), &json!("100000")));
    assert_eq!(now["unexplained"][0]["metered"], "-100000", "the difference from the finalized invoice is reported");
    billing.service.close().await;
}

#[tokio::test]
async fn line_is_explained_by_the_days_of_its_plan_version() {
    let billing = october_customer().await;
    let team = billing.assign_plan(&team_plan("0.01")).await;
    billing.post_admin(&format!("plans/{team}/versions"), &team_plan("0.02")).await.is(200);
    // The plan changes in the middle of the hour of the job and of the day of the file.
    let assign = json!({ "plan": team, "plan_version": 2, "from": "2025-10-02T08:30:00Z" });
    billing.post_account("plan", &assign).await.is(200);
    let explanation = billing.get_json("invoices/2025-10/explanation", "date=2025-10-02").await;
    let days = |line: usize| {
        let line = &explanation["lines"][line];
        let days = line["days"].as_array().unwrap().iter();
        let days =
            days.map(|day| format!("{} {} {}", day["date"], day["metered"], day["exact_amount"]).replace('"', ""));
        (line["plan_version"].clone(), line["exact_amount"].clone(), days.collect::<Vec<_>>())
    };
    assert_eq!(days(0), (json!(1), json!("18"), vec!["2025-10-02 1800000 18".to_owned()]));
    assert_eq!(days(1), (json!(2), json!("36"), vec!["2025-10-02 1800000 36".to_owned()]));
    // The change is at 8:30, so version 1 has 8.5 of the 24 GB-hours.
    assert_eq!(days(2), (json!(1), json!("0.08585"), vec!["2025-10-02 30600000000000000 0.08585".to_owned()]));
    assert_eq!(days(3), (json!(2), json!("0.15655"), vec!["2025-10-02 55800000000000000 0.15655".to_owned()]));
    let ran = explanation["intervals"]["ran"].as_array().unwrap();
    assert_eq!(ran.iter().map(|run| run["run_ms"].clone()).collect::<Vec<_>>(), [json!("1800000"), json!("1800000")]);
    let stored = explanation["intervals"]["stored"].as_array().unwrap();
    assert_eq!((stored.len(), &stored[1]["start"]), (2, &json!("2025-10-02T08:30:00.000Z")));
    billing.service.close().await;
}
