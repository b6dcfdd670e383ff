//! Costs of usage: lines, shares of jobs, and the rules and prices in force over time.

use std::collections::BTreeMap;

use contracts::job::{FileRole, JobCreated, JobFilesLinked};
use serde_json::{Value, json};

use crate::support::{Billing, id, number};

const OCTOBER: &str = "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-10-31T00:00:00Z";

#[tokio::test]
async fn costs_list_lines_and_their_total() {
    let billing = Billing::start().await;
    // 1 TB for 30 days, and a job of 2 hours and 7.25 seconds.
    billing.file(id(1), "2025-10-01T00:00:00Z", billing.part(0, 1_000_000_000_000)).await;
    billing.job(id(11), "2025-10-10T08:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.job(id(11), "2025-10-10T10:00:07.250Z", billing.job_succeeded()).await;
    billing.wait_until_applied(1, 2).await;
    let line = |meter: &str, unit: &str, quantity: &str, unit_price: &str, amount: &str| {
        json!({
            "meter": meter, "unit": unit, "plan": "standard", "plan_version": 1, "quantity": quantity,
            "unit_price": unit_price, "amount": amount,
        })
    };
    assert_eq!(
        billing.get_json("costs", OCTOBER).await,
        json!({
            "organization": billing.organization,
            "from": "2025-10-01T00:00:00.000Z",
            "to": "2025-11-01T00:00:00.000Z",
            "as_of": "2025-10-31T00:00:00.000Z",
            "known_at": null,
            "time_zone": "UTC",
            "currency": "EUR",
            "lines": [
                line("storage", "GB.h", "720000", "0.0001", "72.00"),
                line("compute", "s", "7207.25", "0.00005", "0.36"),
            ],
            "total": "72.36",
            "provisional": true,
            "split": "split",
            "jobs": [{
                "job": id(11), "user": id(21), "byte_ms": "0", "run_ms": "7207250", "amount": "0.3603625", "share": "0.36",
            }],
            "more_jobs": false,
            "unattributed": { "byte_ms": "2592000000000000000000", "run_ms": "0", "amount": "72", "share": "72.00" },
            "others": null,
        })
    );
    billing.file(id(1), "2025-10-31T00:00:00Z", billing.deleted(1_000_000_000_000)).await;
    billing.wait_until_applied(2, 2).await;
    let costs = billing.get_json("costs", OCTOBER).await;
    assert_eq!((&costs["total"], &costs["provisional"]), (&json!("72.36"), &json!(false)));
    billing.service.close().await;
}

#[tokio::test]
async fn costs_are_zero_without_usage() {
    let billing = Billing::start().await;
    let costs = billing.get_json("costs", OCTOBER).await;
    assert_eq!((&costs["total"], &costs["provisional"]), (&json!("0.00"), &json!(false)));
    assert_eq!(costs["lines"].as_array().map(Vec::len), Some(2));
    billing.service.close().await;
}

/// Publishes jobs 11 and 13 of one user and job 12 of another one.
///
/// All three use file 1 (100 GB), and the first user's jobs use file 2 (50 GB). Both files are stored for ten hours, and
/// job 12 runs for 1,000 seconds.
async fn publish_shared_files(billing: &Billing) {
    let organization_id = billing.organization;
    for (job, user, files) in [(11, 21, vec![1, 2]), (12, 22, vec![1]), (13, 21, vec![1, 2])] {
        let created = JobCreated { user_id: Some(id(user)), ..billing.job_created() };
        billing.job(id(job), "2025-10-26T00:00:00Z", created).await;
        let file_ids = files.into_iter().map(id).collect();
        let linked = JobFilesLinked { organization_id, file_ids, role: FileRole::Input };
        billing.job(id(job), "2025-10-26T00:00:00Z", linked).await;
    }
    for (file, bytes) in [(1, 100_000_000_000), (2, 50_000_000_000)] {
        billing.file(id(file), "2025-10-26T01:00:00Z", billing.part(0, bytes)).await;
        billing.file(id(file), "2025-10-26T11:00:00Z", billing.deleted(bytes)).await;
    }
    billing.job(id(12), "2025-10-26T02:00:00Z", billing.job_started(Some(id(22)))).await;
    billing.job(id(12), "2025-10-26T02:16:40Z", billing.job_succeeded()).await;
    billing.wait_until_applied(4, 8).await;
    billing.wait_until_linked(8).await;
}

#[tokio::test]
async fn costs_are_split_by_job_under_the_sharing_rule() {
    let billing = Billing::start().await;
    publish_shared_files(&billing).await;
    let shares = |costs: &Value| {
        let share =
            |item: &Value| (item["amount"].as_str().unwrap().to_owned(), item["share"].as_str().unwrap().to_owned());
        let jobs = costs["jobs"].as_array().unwrap().iter().map(share);
        [share(&costs["unattributed"])].into_iter().chain(jobs).collect::<Vec<_>>()
    };
    let owned = |shares: [(&str, &str); 4]| shares.map(|(amount, share)| (amount.to_owned(), share.to_owned()));
    let split = billing.get_json("costs", OCTOBER).await;
    assert_eq!((&split["split"], &split["total"], &split["others"]), (&json!("split"), &json!("0.20"), &json!(null)));
    let expected = [("0", "0.00"), ("0.058333333333", "0.06"), ("0.083333333333", "0.08"), ("0.058333333333", "0.06")];
    assert_eq!(shares(&split), owned(expected), "a third of file 1 each, half of file 2");

    // At the same prices with `unshared_only`, files shared by several users are unattributed. The total is the same.
    billing.open_account().await;
    let plan = json!({
        "name": "Unshared", "currency": "EUR", "split": "unshared_only",
        "charges": [
            { "meter": "compute", "unit": "s", "model": "flat", "unit_price": "0.00005" },
            { "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.0001" },
        ],
    });
    billing.assign_plan(&plan).await;
    let unshared_only = billing.get_json("costs", OCTOBER).await;
    let expected = [("0.1", "0.10"), ("0.025", "0.03"), ("0.05", "0.05"), ("0.025", "0.02")];
    assert_eq!((&unshared_only["split"], shares(&unshared_only)), (&json!("unshared_only"), owned(expected).to_vec()));
    assert_eq!(unshared_only["total"], split["total"]);
    for (line, other) in [0, 1].map(|line| (&split["lines"][line], &unshared_only["lines"][line])) {
        assert_eq!((&line["quantity"], &line["amount"]), (&other["quantity"], &other["amount"]));
    }

    // `/usage` and `/usage/rows` use the same rule.
    let usage = billing.get_json("usage", OCTOBER).await;
    let file = &usage["storage"]["files"][0];
    assert_eq!((&file["unattributed_byte_ms"], &file["jobs"]), (&file["byte_ms"], &json!([])));
    let rows = billing.get_json("usage/rows", &format!("{OCTOBER}&group_by=job&every=period")).await;
    let byte_ms: Vec<_> = rows["rows"].as_array().unwrap().iter().map(|row| row["gb_hours"].clone()).collect();
    assert_eq!(json!(byte_ms), json!(["1000", "250", "0", "250"]));
    billing.service.close().await;
}

#[tokio::test]
async fn costs_use_the_prices_of_the_account() {
    let billing = Billing::start().await;
    publish_shared_files(&billing).await;
    billing.open_account().await;
    let plan = json!({
        "name": "Tiers", "currency": "EUR", "minimum": "50", "tax_percent": "10",
        "charges": [{
            "meter": "storage", "unit": "GB.h", "model": "graduated",
            "tiers": [{ "up_to": "1000", "unit_price": "0.01" }, { "up_to": null, "unit_price": "0.002" }],
        }],
    });
    let plan = billing.assign_plan(&plan).await;
    let costs = billing.get_json("costs", OCTOBER).await;
    let line = json!({
        "meter": "storage", "unit": "GB.h", "plan": plan, "plan_version": 1, "quantity": "1500", "unit_price": null,
        "amount": "11.00",
    });
    assert_eq!((&costs["lines"], &costs["total"]), (&json!([line]), &json!("11.00")), "without minimum and tax");
    let shares: Vec<_> = costs["jobs"].as_array().unwrap().iter().map(|job| job["share"].as_str().unwrap()).collect();
    assert_eq!(shares, ["4.28", "2.44", "4.28"]);
    billing.service.close().await;
}

fn plan(split: &str, compute: &str) -> Value {
    json!({
        "name": "P", "currency": "EUR", "split": split,
        "charges": [
            { "meter": "compute", "unit": "s", "model": "flat", "unit_price": compute },
            { "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.01" },
        ],
    })
}

#[tokio::test]
async fn job_costs_use_the_prices_in_force_at_its_run() {
    let billing = Billing::start().await;
    billing.open_account().await;
    billing.assign_plan(&plan("split", "1")).await;
    billing.assign_plan_from("2025-10-16T00:00:00Z", &plan("split", "10")).await;
    for (job, day) in [(11, 10), (12, 20)] {
        billing.job(id(job), &format!("2025-10-{day}T08:00:00Z"), billing.job_started(None)).await;
        billing.job(id(job), &format!("2025-10-{day}T08:01:40Z"), billing.job_succeeded()).await;
    }
    billing.wait_until_applied(0, 4).await;
    let jobs_and_total = |costs: &Value| {
        let job = |job: &Value| format!("{} {} {}", job["run_ms"], job["amount"], job["share"]);
        let jobs: Vec<_> = costs["jobs"].as_array().unwrap().iter().map(job).collect();
        (jobs, costs["total"].as_str().unwrap().to_owned())
    };
    let jobs = [r#""100000" "100" "100.00""#, r#""100000" "1000" "1000.00""#].map(str::to_owned).to_vec();
    assert_eq!(jobs_and_total(&billing.get_json("costs", OCTOBER).await), (jobs, "1100.00".to_owned()));

    // Usage during a price override costs the override price and has a line of its own.
    let price_override = json!({ "meter": "compute", "unit": "s", "model": "flat", "unit_price": "2" });
    for (from, charge) in [("2025-10-18T00:00:00Z", &price_override), ("2025-10-20T08:00:40Z", &Value::Null)] {
        billing.post_account("prices", &json!({ "meter": "compute", "charge": charge, "from": from })).await.is(200);
    }
    let jobs = [r#""100000" "100" "100.00""#, r#""100000" "680" "680.00""#].map(str::to_owned).to_vec();
    assert_eq!(jobs_and_total(&billing.get_json("costs", OCTOBER).await), (jobs, "780.00".to_owned()));

    // A second override joins the same line, which then has no single unit price.
    let price_override = json!({ "meter": "compute", "unit": "s", "model": "flat", "unit_price": "4" });
    let change = json!({ "meter": "compute", "charge": price_override, "from": "2025-10-20T08:01:20Z" });
    billing.post_account("prices", &change).await.is(200);
    let costs = billing.get_json("costs", OCTOBER).await;
    let jobs = [r#""100000" "100" "100.00""#, r#""100000" "560" "560.00""#].map(str::to_owned).to_vec();
    assert_eq!(jobs_and_total(&costs), (jobs, "660.00".to_owned()));
    let compute = costs["lines"].as_array().unwrap().iter().filter(|line| line["meter"] == "compute");
    let mut lines: Vec<_> =
        compute.map(|line| format!("{} {} {}", line["quantity"], line["unit_price"], line["amount"])).collect();
    lines.sort();
    assert_eq!(lines, [r#""100" "1" "100.00""#, r#""40" "10" "400.00""#, r#""60" null "160.00""#]);
    billing.service.close().await;
}

/// Byte-milliseconds by file and job. The job is `None` for unattributed usage.
type Shares = BTreeMap<(String, Option<String>), i128>;

/// Reads the shares of a period, and asserts that jobs and unattributed usage sum to each file.
async fn shares(billing: &Billing, period: &str) -> Shares {
    let usage = billing.get_json("usage", period).await;
    let mut shares = Shares::new();
    for file in usage["storage"]["files"].as_array().unwrap() {
        let id = file["file"].as_str().unwrap().to_owned();
        let mut sum = number(&file["unattributed_byte_ms"]);
        shares.insert((id.clone(), None), sum);
        for job in file["jobs"].as_array().unwrap() {
            sum += number(&job["byte_ms"]);
            shares.insert((id.clone(), Some(job["job"].as_str().unwrap().to_owned())), number(&job["byte_ms"]));
        }
        assert_eq!(sum, number(&file["byte_ms"]), "{file}");
    }
    shares
}

#[tokio::test]
async fn sharing_rule_applies_by_time_for_every_query_period() {
    let billing = Billing::start().await;
    billing.open_account().await;
    billing.assign_plan(&plan("split", "1")).await;
    billing.assign_plan_from("2025-10-16T12:34:56.789Z", &plan("unshared_only", "1")).await;
    let organization_id = billing.organization;
    // Jobs 11 and 13 belong to one user and job 12 to another one. The users of jobs 14 and 15 are unknown, so they count
    // as different users.
    for (job, user, files) in [
        (11, Some(21), vec![1, 2]),
        (12, Some(22), vec![1]),
        (13, Some(21), vec![1, 2]),
        (14, None, vec![3]),
        (15, None, vec![3]),
    ] {
        let created = JobCreated { user_id: user.map(id), ..billing.job_created() };
        billing.job(id(job), "2025-10-10T00:00:00Z", created).await;
        let file_ids = files.into_iter().map(id).collect();
        let linked = JobFilesLinked { organization_id, file_ids, role: FileRole::Input };
        billing.job(id(job), "2025-10-10T00:00:00.001Z", linked).await;
    }
    for (file, bytes) in [(1, 100_000_000_001), (2, 50_000_000_003), (3, 7)] {
        billing.file(id(file), "2025-10-10T01:00:00.001Z", billing.part(0, bytes)).await;
    }
    billing.wait_until_applied(3, 10).await;
    billing.wait_until_linked(10).await;

    let query = |from: &str, to: &str| format!("from={from}&to={to}&as_of=2025-10-30T03:00:00Z");
    let month = query("2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z");
    let days =
        (1..31).map(|day| query(&format!("2025-10-{day:02}T00:00:00Z"), &format!("2025-10-{:02}T00:00:00Z", day + 1)));
    let days: Vec<_> = days.collect();

    let mut sum = Shares::new();
    for day in &days {
        for (key, byte_ms) in shares(&billing, day).await {
            *sum.entry(key).or_insert(0) += byte_ms;
        }
    }
    let of_month = shares(&billing, &month).await;
    assert_eq!(sum, of_month, "days sum to the month, for each file and job");
    let of =
        |file, job: Option<u128>| of_month.get(&(id(file).to_string(), job.map(|job| id(job).to_string()))).copied();
    // Milliseconds before the change of plans, which is 6 days, 11 hours, 34 minutes and 56.788 seconds later, and after it.
    let (split, unshared) = (560_096_788, 1_175_103_211);
    assert_eq!(
        of(1, Some(12)),
        Some(100_000_000_001 * split / 3 + 1),
        "the remainder of a third goes to the first two jobs"
    );
    assert_eq!(
        (of(1, None), of(2, None), of(3, None)),
        (Some(100_000_000_001 * unshared), Some(0), Some(7 * unshared))
    );
    assert_eq!((of(3, Some(14)), of(3, Some(15))), (Some(7 * split / 2), Some(7 * split / 2)));

    for group_by in ["job", "user", "job_configuration", "file"] {
        let rows = async |period: &str| {
            let rows = billing.get_json("usage/rows", &format!("{period}&every=day&group_by={group_by}")).await["rows"]
                .clone();
            let key = |row: &Value| (row["date"].to_string(), row["key"].to_string());
            let rows = rows.as_array().unwrap().iter().map(|row| (key(row), number(&row["byte_ms"])));
            rows.collect::<BTreeMap<_, _>>()
        };
        let mut one_by_one = BTreeMap::new();
        for day in &days {
            one_by_one.extend(rows(day).await);
        }
        assert!(one_by_one.len() > 20);
        assert_eq!(rows(&month).await, one_by_one, "by {group_by}");
    }

    let costs = billing.get_json("costs", &month).await;
    assert_eq!(costs["split"], "unshared_only", "the rule of the last plan");
    let of_job = |job: &Value| (job["job"].as_str().unwrap().to_owned(), number(&job["byte_ms"]));
    let by_job: BTreeMap<_, _> = costs["jobs"].as_array().unwrap().iter().map(of_job).collect();
    let mut expected = BTreeMap::new();
    for ((_, job), byte_ms) in of_month.iter().filter(|((_, job), _)| job.is_some()) {
        *expected.entry(job.clone().unwrap()).or_insert(0) += byte_ms;
    }
    assert_eq!(by_job, expected);
    assert_eq!(billing.get_json("costs", &days[14]).await["split"], "split");
    billing.service.close().await;
}

#[tokio::test]
async fn responses_are_as_of_the_service_clock() {
    let mut billing = Billing::start().await;
    billing.file(id(1), "2025-10-01T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.wait_until_applied(1, 0).await;
    billing.set_clock("2025-10-03T00:00:00Z");
    for resource in ["usage", "costs", "usage/rows"] {
        let answer = billing.get_json(resource, "").await;
        assert_eq!(
            (&answer["as_of"], &answer["from"], &answer["to"]),
            (
                &json!("2025-10-03T00:00:00.000Z"),
                &json!("2025-10-01T00:00:00.000Z"),
                &json!("2025-10-03T00:00:00.000Z")
            ),
            "{resource}"
        );
    }
    assert_eq!(billing.get_json("usage", "").await["storage"]["gb_hours"], "48");
    billing.service.close().await;
}

#[tokio::test]
async fn job_user_is_reported_as_of_the_query() {
    let billing = Billing::start().await;
    let organization_id = billing.organization;
    let linked = JobFilesLinked { organization_id, file_ids: vec![id(1)], role: FileRole::Input };
    billing.job(id(11), "2025-10-02T00:00:00Z", linked).await;
    billing.job(id(11), "2025-10-05T00:00:00Z", billing.job_started(Some(id(21)))).await;
    billing.file(id(1), "2025-10-01T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.wait_until_applied(1, 2).await;
    billing.wait_until_linked(2).await;
    let user = async |as_of: &str| {
        let query = format!("from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of={as_of}");
        billing.get_json("costs", &query).await["jobs"][0]["user"].clone()
    };
    assert_eq!(user("2025-10-04T00:00:00Z").await, Value::Null);
    assert_eq!(user("2025-10-06T00:00:00Z").await, json!(id(21)));
    billing.service.close().await;
}
