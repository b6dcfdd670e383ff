//! Run time by machine type, from events with a machine type and from older events without one.

use contracts::job;
use serde_json::json;

use crate::support::{Billing, at, id};

/// The first version of `JobStarted`, which had no machine type.
mod first_version {
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct JobStarted {
        pub(crate) organization_id: Uuid,
        pub(crate) machine_id: Uuid,
        pub(crate) user_id: Option<Uuid>,
    }

    const SCHEMA: &str = include_str!("../../../../schemas/job/JobStarted.1.avsc");

    epoch::events! {
        /// The events of this version that the test publishes.
        pub(crate) enum Event {
            JobStarted = [SCHEMA],
        }
    }
}

const DAY: &str = "from=2025-10-26T00:00:00Z&to=2025-10-27T00:00:00Z&as_of=2025-10-27T00:00:00Z";

#[tokio::test]
async fn run_time_is_grouped_by_machine_type() {
    let billing = Billing::start().await;
    let start = "2025-10-26T10:00:00Z";
    for (number, machine_type) in [(1, "gpu-1"), (2, "gpu-1"), (3, "small")] {
        let started = billing.job_started(None);
        let started = job::JobStarted { machine_type: machine_type.into(), ..started };
        billing.job(id(number), start, started).await;
        billing.job(id(number), &format!("2025-10-26T10:00:0{number}Z"), billing.job_succeeded()).await;
    }
    let organization_id = billing.organization;
    let started = first_version::JobStarted { organization_id, machine_id: id(900), user_id: None };
    let events = [first_version::Event::from(started)];
    billing.service.publish(job::AGGREGATE, id(4), organization_id, at(start), &events).await;
    billing.job(id(4), "2025-10-26T10:01:00Z", billing.job_succeeded()).await;
    billing.wait_until_applied(0, 8).await;

    let rows = billing.get_json("usage/rows", &format!("{DAY}&group_by=machine_type")).await;
    let mut run_times: Vec<_> =
        rows["rows"].as_array().unwrap().iter().map(|row| json!([row["key"], row["run_ms"]])).collect();
    let mut expected = [json!(["default", "60000"]), json!(["gpu-1", "3000"]), json!(["small", "3000"])];
    let by_text = |row: &serde_json::Value| row.to_string();
    run_times.sort_by_key(by_text);
    expected.sort_by_key(by_text);
    assert_eq!(run_times, expected, "{rows}");
    assert_eq!(rows["rows"][0]["byte_ms"], json!(null), "storage has no machine type");

    // Pages join, although the keys are names and the cursor is an id.
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("{DAY}&every=period&group_by=machine_type&limit=1{cursor}");
        let page = billing.get_json("usage/rows", &query).await;
        keys.extend(page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    keys.sort_unstable();
    assert_eq!(keys, ["default", "gpu-1", "small"]);

    let path = billing.path("usage/rows", &format!("{DAY}&every=period&group_by=machine_type&format=csv"));
    let csv = billing.service.get(path).by(&billing.viewer).send().await.expect(200);
    let csv = String::from_utf8(csv.bytes.to_vec()).unwrap();
    assert!(csv.starts_with("date,start,end,machine_type,") && csv.contains(",gpu-1,,,3000"), "{csv}");
    billing.service.close().await;
}
