//! The main use case through the public API: upload a file, run a job on it, read its cost. Runs with all services in one
//! process and the fast path, with one process per service over Kafka, and over RabbitMQ.

use std::{process::Command, time::Duration};

use epoch_postgres::testkit::TestDatabase;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_client::ApiClient,
    installation::{Environment, Installation, within},
    metrics::counter,
};

const MIB: usize = 1024 * 1024;

/// Returns 64 MiB of pseudo-random bytes, the same in each run.
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

/// Runs the use case.
pub(crate) async fn run(installation: &Installation) {
    let (organization, client) = installation.api.create_organization("Flow").await;
    let base = format!("/api/v1/organizations/{organization}");
    let command = ["sh", "-c", "sleep 0.3; sha256sum < inputs/input.bin | cut -d' ' -f1 > outputs/sum.txt; echo done"];
    let configuration = json!({ "name": "Checksum", "command": command, "timeout_ms": 60_000 });
    let configuration = client.create(&format!("{base}/job-configurations"), &configuration).await;

    let content = content();
    let file = client.upload(&organization, &content, 24 * MIB).await;
    let stored = client.request(Method::GET, &format!("{base}/files/{file}/content")).send().await.unwrap();
    assert_eq!(stored.status(), StatusCode::OK);
    assert!(stored.bytes().await.unwrap() == content, "downloaded bytes equal the upload");

    let job = json!({ "job_configuration_id": configuration["id"], "name": "Sum", "file_ids": [file] });
    let job = client.create(&format!("{base}/jobs"), &job).await;
    let job_path = format!("{base}/jobs/{}", job["id"].as_str().unwrap());
    let queued = client.command(&format!("{job_path}/queue"), &Value::Null).await;
    let version = queued["version"].as_u64().unwrap();
    let read = client.get(&format!("{job_path}?min_version={version}")).await;
    assert_ne!(read["status"], "created", "a read with min_version is not stale");

    let job = within(Duration::from_secs(60), "the job to finish", async || {
        let job = client.get(&job_path).await;
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

    let sum = read_output(&client, &base, &job_path, "sum.txt").await;
    let path = installation.environment.directory.path().join("content");
    std::fs::write(&path, &content).unwrap();
    assert_eq!(sum.trim(), sha256_of_file(&path));
    assert_eq!(read_output(&client, &base, &job_path, "stdout.txt").await, "done\n");

    assert_usage_and_costs(&client, &base, &file, content.len() as i128, run_ms).await;
    assert_reconciled(installation).await;
}

/// Checks that billing's copies of the file and job events equal the originals.
async fn assert_reconciled(installation: &Installation) {
    let state = async || installation.api.get("/api/v1/admin/metering/reconciliation").await;
    let rounds = |state: &Value| ["file", "job"].map(|aggregate| state["copy"][aggregate]["round"].as_i64().unwrap());
    let first_rounds = rounds(&state().await);
    let state = within(Duration::from_secs(60), "all streams to be compared", async || {
        let state = state().await;
        let complete = rounds(&state).into_iter().zip(first_rounds).all(|(round, first)| round >= first + 2);
        complete.then_some(state)
    })
    .await;
    assert_eq!((&state["equal"], &state["differences"]), (&json!(true), &json!([])), "{state}");
    for (aggregate, rows) in [("file", 3), ("job", 5)] {
        let copy = &state["copy"][aggregate];
        assert!(copy["rows_compared"].as_i64().unwrap() >= rows, "{state}");
        assert_eq!(copy["unreachable_since"], Value::Null, "{state}");
    }
}

async fn read_output(client: &ApiClient, base: &str, job_path: &str, name: &str) -> String {
    let outputs = within(Duration::from_secs(20), "the events of the outputs", async || {
        let outputs = client.get(&format!("{job_path}/outputs")).await;
        let items = outputs.get("items").unwrap_or(&outputs).as_array().unwrap().clone();
        items.iter().all(|item| item["name"].is_string()).then_some(items).filter(|items| items.len() == 2)
    })
    .await;
    let output = outputs.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("{name}: {outputs:?}"));
    let id = output["id"].as_str().or(output["file_id"].as_str()).unwrap();
    let response = client.request(Method::GET, &format!("{base}/files/{id}/content")).send().await.unwrap();
    response.text().await.unwrap()
}

fn number(value: &Value) -> i128 {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a number in a string")).parse().unwrap()
}

async fn assert_usage_and_costs(client: &ApiClient, base: &str, file: &str, bytes: i128, run_ms: u64) {
    // After billing has all events, two readings at a known distance differ by exactly that time.
    let path = format!("{base}/usage");
    let usage = within(Duration::from_secs(30), "billing to receive all events", async || {
        let usage = client.get(&path).await;
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
    let first = client.get(&day("2099-01-01T00:00:00.000Z")).await;
    let second = client.get(&day("2099-01-01T00:00:01.007Z")).await;
    assert_eq!(of_file(&second) - of_file(&first), bytes * 1_007, "bytes times milliseconds, exactly");

    let costs = client.get(&format!("{base}/costs")).await;
    let lines = costs["lines"].as_array().unwrap();
    let meters: Vec<_> = lines.iter().map(|line| line["meter"].as_str().unwrap()).collect();
    assert!(meters.contains(&"storage") && meters.contains(&"compute"), "{costs}");
    let compute = lines.iter().find(|line| line["meter"] == "compute").unwrap();
    let seconds = format!("{}.{:03}", run_ms / 1_000, run_ms % 1_000);
    assert_eq!(compute["quantity"].as_str().unwrap(), seconds.trim_end_matches('0').trim_end_matches('.'));
}

/// Checks that services applied each other's events from the bus.
async fn assert_applied_from_bus(installation: &Installation) {
    let mut applied = 0;
    for address in &installation.addresses {
        applied += counter(address, "epoch_delivered_total", &[("way", "bus"), ("result", "applied")]).await;
    }
    assert!(applied > 10, "events applied from the bus: {applied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_in_one_process_uses_the_fast_path() {
    let installation = Installation::colocated().await;
    run(&installation).await;
    let address = installation.addresses[0].clone();
    let applied = async |way| counter(&address, "epoch_delivered_total", &[("way", way), ("result", "applied")]).await;
    let local = applied("local").await;
    assert!(local > 20, "the fast path was used: {local}");
    let dropped = within(Duration::from_secs(30), "the copies on the bus", async || {
        let labels = [("way", "bus"), ("result", "duplicate")];
        let dropped = counter(&address, "epoch_delivered_total", &labels).await;
        (dropped >= applied("local").await).then_some(dropped)
    })
    .await;
    assert!(dropped > 20, "copies that came over the bus were dropped: {dropped}");
    installation.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_in_separate_processes_uses_the_bus() {
    let installation = Installation::separate().await;
    run(&installation).await;
    assert_applied_from_bus(&installation).await;
    if let Some(kafka) = &installation.environment.kafka {
        crate::foreign_client::assert_topics(kafka, &installation.environment.namespace);
    }
    installation.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_in_separate_processes_uses_rabbitmq() {
    let Ok(url) = std::env::var("EPOCH_TEST_AMQP") else {
        return eprintln!("skipped: EPOCH_TEST_AMQP is not set");
    };
    let database = TestDatabase::create().await;
    let mut environment = Environment::new(database.url(), None);
    environment.amqp = Some(url);
    let installation = Installation::separate_in(environment).await;
    run(&installation).await;
    assert_applied_from_bus(&installation).await;
    installation.close().await;
    database.drop().await;
}
