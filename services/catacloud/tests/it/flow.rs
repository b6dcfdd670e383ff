//! The main job, through the public door only: an uploaded file, a job run on it, and its cost. Once with each service in a
//! process of its own over Kafka, once with all in one process and the local way.

use std::{process::Command, time::Duration};

use epoch_postgres::testkit::TestDatabase;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_client::Door,
    installation::{Site, Stack, within},
    metrics::counter,
};

const MIB: usize = 1024 * 1024;

/// 64 MiB that don't repeat, always the same.
pub(crate) fn content() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(64 * MIB);
    while bytes.len() < 64 * MIB {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn sha256_of_file(path: &std::path::Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Runs the whole flow.
pub(crate) async fn run(stack: &Stack) {
    let (organization, door) = stack.door.organization("Flow").await;
    let base = format!("/api/v1/organizations/{organization}");
    let command = ["sh", "-c", "sleep 0.3; sha256sum < inputs/input.bin | cut -d' ' -f1 > outputs/sum.txt; echo done"];
    let configuration = json!({ "name": "Checksum", "command": command, "timeout_ms": 60_000 });
    let configuration = door.create(&format!("{base}/job-configurations"), &configuration).await;

    let content = content();
    let file = door.upload(&organization, &content, 24 * MIB).await;
    let stored = door.request(Method::GET, &format!("{base}/files/{file}/content")).send().await.unwrap();
    assert_eq!(stored.status(), StatusCode::OK);
    assert!(stored.bytes().await.unwrap() == content, "the file's bytes came back");

    let job = json!({ "job_configuration_id": configuration["id"], "name": "Sum", "file_ids": [file] });
    let job = door.create(&format!("{base}/jobs"), &job).await;
    let job_path = format!("{base}/jobs/{}", job["id"].as_str().unwrap());
    let queued = door.command(&format!("{job_path}/queue"), &Value::Null).await;
    let version = queued["version"].as_u64().unwrap();
    let read = door.get(&format!("{job_path}?min_version={version}")).await;
    assert_ne!(read["status"], "created", "a read that waits for its version is not stale");

    let job = within(Duration::from_secs(60), "the job to finish", async || {
        let job = door.get(&job_path).await;
        let status = job["status"].as_str().unwrap().to_owned();
        (!["created", "queued", "assigned", "running"].contains(&status.as_str())).then_some(job)
    })
    .await;
    assert_eq!(
        (&job["status"], &job["exit_code"], &job["provisional"]),
        (&json!("succeeded"), &json!(0), &json!(false))
    );
    let run_ms = job["run_ms"].as_u64().unwrap();
    assert!((300..60_000).contains(&run_ms), "{run_ms} ms");

    let sum = output(&door, &base, &job_path, "sum.txt").await;
    let path = stack.site.directory.path().join("content");
    std::fs::write(&path, &content).unwrap();
    assert_eq!(sum.trim(), sha256_of_file(&path));
    assert_eq!(output(&door, &base, &job_path, "stdout.txt").await, "done\n");

    usage_and_costs(&door, &base, &file, content.len() as i128, run_ms).await;
    reconciled(stack).await;
}

/// Billing asks the services of files and of jobs for their logs, and has what they have.
async fn reconciled(stack: &Stack) {
    let state = async || stack.door.get("/api/v1/admin/metering/reconciliation").await;
    let rounds = |state: &Value| ["file", "job"].map(|aggregate| state["copy"][aggregate]["round"].as_i64().unwrap());
    let begun = rounds(&state().await);
    let state = within(Duration::from_secs(60), "all streams to be compared", async || {
        let state = state().await;
        let walked = rounds(&state).into_iter().zip(begun).all(|(round, begun)| round >= begun + 2);
        walked.then_some(state)
    })
    .await;
    assert_eq!((&state["equal"], &state["differences"]), (&json!(true), &json!([])), "{state}");
    for (aggregate, rows) in [("file", 3), ("job", 5)] {
        let copy = &state["copy"][aggregate];
        assert!(copy["rows_compared"].as_i64().unwrap() >= rows, "{state}");
        assert_eq!(copy["unreachable_since"], Value::Null, "{state}");
    }
}

async fn output(door: &Door, base: &str, job_path: &str, name: &str) -> String {
    let outputs = within(Duration::from_secs(20), "the outputs", async || {
        let outputs = door.get(&format!("{job_path}/outputs")).await;
        let items = outputs.get("items").unwrap_or(&outputs).as_array().unwrap().clone();
        items.iter().all(|item| item["name"].is_string()).then_some(items).filter(|items| items.len() == 2)
    })
    .await;
    let found = outputs.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("{name}: {outputs:?}"));
    let id = found["id"].as_str().or(found["file_id"].as_str()).unwrap();
    let response = door.request(Method::GET, &format!("{base}/files/{id}/content")).send().await.unwrap();
    response.text().await.unwrap()
}

fn number(value: &Value) -> i128 {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a number in a string")).parse().unwrap()
}

async fn usage_and_costs(door: &Door, base: &str, file: &str, bytes: i128, run_ms: u64) {
    // Once billing has everything, two readings a known time apart differ by exactly that time.
    let path = format!("{base}/usage");
    let usage = within(Duration::from_secs(30), "billing to have everything", async || {
        let usage = door.get(&path).await;
        let has_file = usage["storage"]["files"].as_array().unwrap().len() == 3;
        let has_run = usage["compute"]["run_ms"] == *run_ms.to_string() && usage["compute"]["provisional"] == false;
        (has_file && has_run).then_some(usage)
    })
    .await;
    assert_eq!(usage["storage"]["provisional"], true, "the file is still stored");
    let days = usage["storage"]["days"].as_array().unwrap();
    let total: i128 = days.iter().map(|day| number(&day["byte_ms"])).sum();
    assert_eq!(total, number(&usage["storage"]["byte_ms"]), "days sum to the interval");
    let run_days = usage["compute"]["days"].as_array().unwrap();
    assert_eq!(run_days.iter().map(|day| number(&day["run_ms"])).sum::<i128>(), i128::from(run_ms));

    let of_file = |usage: &Value| -> i128 {
        let files = usage["storage"]["files"].as_array().unwrap();
        number(&files.iter().find(|entry| entry["file"] == file).unwrap()["byte_ms"])
    };
    let day = |instant: &str| format!("{base}/usage?from=2098-12-01T00:00:00Z&to=2099-12-31T00:00:00Z&as_of={instant}");
    let first = door.get(&day("2099-01-01T00:00:00.000Z")).await;
    let second = door.get(&day("2099-01-01T00:00:01.007Z")).await;
    assert_eq!(of_file(&second) - of_file(&first), bytes * 1_007, "bytes times milliseconds, exactly");

    let costs = door.get(&format!("{base}/costs")).await;
    let lines = costs["lines"].as_array().unwrap();
    let meters: Vec<_> = lines.iter().map(|line| line["meter"].as_str().unwrap()).collect();
    assert!(meters.contains(&"storage") && meters.contains(&"compute"), "{costs}");
    let compute = lines.iter().find(|line| line["meter"] == "compute").unwrap();
    let seconds = format!("{}.{:03}", run_ms / 1_000, run_ms % 1_000);
    assert_eq!(compute["quantity"].as_str().unwrap(), seconds.trim_end_matches('0').trim_end_matches('.'));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_with_the_local_way() {
    let stack = Stack::colocated().await;
    run(&stack).await;
    let address = stack.addresses[0].clone();
    let applied = async |way| counter(&address, "epoch_delivered_total", &[("way", way), ("result", "applied")]).await;
    let local = applied("local").await;
    assert!(local > 20, "the local way was used: {local}");
    let dropped = within(Duration::from_secs(30), "the bus's copies", async || {
        let labels = [("way", "bus"), ("result", "duplicate")];
        let dropped = counter(&address, "epoch_delivered_total", &labels).await;
        (dropped >= applied("local").await).then_some(dropped)
    })
    .await;
    assert!(dropped > 20, "copies that came over the bus were dropped: {dropped}");
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_for_each_service_over_the_bus() {
    let stack = Stack::separate().await;
    run(&stack).await;
    let mut over_the_bus = 0;
    for address in &stack.addresses {
        over_the_bus += counter(address, "epoch_delivered_total", &[("way", "bus"), ("result", "applied")]).await;
    }
    assert!(over_the_bus > 10, "other services' events came over the bus: {over_the_bus}");
    if let Some(kafka) = &stack.site.kafka {
        crate::foreign_client::checks(kafka, &stack.site.namespace);
    }
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_for_each_service_over_rabbitmq() {
    let Ok(url) = std::env::var("EPOCH_TEST_AMQP") else {
        return eprintln!("left out: EPOCH_TEST_AMQP names no broker");
    };
    let database = TestDatabase::create().await;
    let mut site = Site::new(database.url(), None);
    site.amqp = Some(url);
    let stack = Stack::separate_at(site).await;
    run(&stack).await;
    let mut over_the_bus = 0;
    for address in &stack.addresses {
        over_the_bus += counter(address, "epoch_delivered_total", &[("way", "bus"), ("result", "applied")]).await;
    }
    assert!(over_the_bus > 10, "other services' events came over RabbitMQ: {over_the_bus}");
    stack.close().await;
    database.drop().await;
}
