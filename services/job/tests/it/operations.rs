//! Command-line operations, run by the real binary while the service runs.

use std::process::Command;

use serde_json::{Value, json};
use service_host::testkit::SECRET;
use uuid::Uuid;

use crate::support::Platform;

/// Result of a finished command.
struct CommandResult {
    code: Option<i32>,
    out: String,
    err: String,
}

impl CommandResult {
    /// Returns the printed JSON objects.
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }
}

async fn job(platform: &Platform, arguments: &[&str]) -> CommandResult {
    let mut command = Command::new(env!("CARGO_BIN_EXE_job"));
    command.args(arguments).env("CATACLOUD_LOG", "error").env("CATACLOUD_BUS", "memory");
    command.env("DATABASE_URL", platform.service.database.url()).env("CATACLOUD_SECRET", SECRET);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandResult { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Returns the entry of a subscription in `subscriptions --json`.
async fn subscription(platform: &Platform, name: &str) -> Value {
    let listed = job(platform, &["subscriptions", "--json"]).await.expect(0).json();
    listed.into_iter().find(|listed| listed["subscription"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_command_prints_decoded_payloads() {
    let platform = Platform::start().await;
    let (configuration, unknown_id) = (platform.define("Checksum").await, Uuid::now_v7().to_string());
    let id = platform.create(configuration, &[]).await.to_string();
    platform.post(&format!("jobs/{id}/queue")).send().await.is(200);

    let shown = job(&platform, &["events", "job", &id, "--json"]).await.expect(0).json();
    let names: Vec<_> = shown.iter().map(|event| (&event["version"], event["event"].as_str().unwrap())).collect();
    assert_eq!(names, [(&json!(1), "JobCreated"), (&json!(2), "JobQueued")]);
    let payload = &shown[0]["payload"];
    assert_eq!(payload["job_configuration_id"], configuration.to_string());
    assert_eq!((&payload["command"], &payload["timeout_ms"]), (&json!(["sha256sum", "-b"]), &json!(60_000)));
    assert_eq!(shown[0]["tenant"], platform.organization.to_string());

    let text = job(&platform, &["events", "job", &id, "--from", "2"]).await.expect(0).out;
    assert!(text.lines().count() == 1 && text.contains("JobQueued"), "{text}");
    let none = job(&platform, &["events", "job", &unknown_id]).await.expect(3);
    assert!(none.out.is_empty() && none.err.contains(&unknown_id), "{}", none.err);
    let unknown = job(&platform, &["events", "yob", &id]).await.expect(3);
    assert!(unknown.err.contains("job_configuration"), "lists the aggregates: {}", unknown.err);
    job(&platform, &["events", "job", "one"]).await.expect(2);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projection_is_rebuilt_while_the_service_runs() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let id = platform.create(configuration, &[]).await;
    let before = platform.get_job(id).await;
    sqlx::query("update jobs set name = 'spoiled', status = 'running'").execute(&platform.service.pool).await.unwrap();
    assert_ne!(platform.get_job(id).await, before);

    let rebuilt = job(&platform, &["rebuild", "jobs", "--json"]).await.expect(0);
    assert_eq!(rebuilt.json(), [json!({ "subscription": "jobs", "generation": 2, "applied": 1, "resumed": false })]);
    assert!(rebuilt.err.contains("1/1 events"), "progress: {}", rebuilt.err);
    assert_eq!(platform.get_job(id).await, before);
    let status = subscription(&platform, "jobs").await;
    assert_eq!((&status["generation"], &status["building"]), (&json!(2), &Value::Null));
    assert_eq!((&status["lag_events"], &status["parked_aggregates"]), (&json!(0), &json!(0)));

    // The running service continues with the new tables.
    platform.queue(id).await;
    assert_eq!(platform.get_job(id).await["status"], "queued");
    let another = platform.create(configuration, &[]).await;
    assert_eq!(platform.get_job(another).await["status"], "created");
    job(&platform, &["rebuild", "jobs"]).await.expect(0);
    assert_eq!(platform.get_job(another).await["status"], "created");

    let unknown = job(&platform, &["rebuild", "yobs"]).await.expect(3);
    assert!(unknown.err.contains("job_configurations, jobs, known_files"), "{}", unknown.err);
    let replayed = job(&platform, &["replay", "jobs"]).await.expect(0).out;
    assert!(replayed.contains("position"), "{replayed}");
    assert_eq!(platform.get_job(another).await["status"], "created", "a replay changes nothing");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_is_listed_and_released_by_retry() {
    let platform = Platform::start().await;
    let pool = &platform.service.pool;
    sqlx::query("alter table job_configurations add constraint no_bad check (name <> 'bad')")
        .execute(pool)
        .await
        .unwrap();
    let (bad, good) = (platform.define("bad").await, platform.define("good").await);
    let letters =
        async || job(&platform, &["dead-letters", "list", "job_configurations", "--json"]).await.expect(0).json();
    let letter = platform.service.eventually(async || letters().await.pop()).await;
    assert_eq!((&letter["aggregate_id"], &letter["version"]), (&json!(bad.to_string()), &json!(1)));
    assert!(letter["error"].as_str().unwrap().contains("no_bad"), "{letter}");
    assert_eq!(subscription(&platform, "job_configurations").await["parked_aggregates"], 1);
    platform.get(&format!("job-configurations/{good}?min_version=1")).send().await.is(200);

    let release = |action: &'static str| {
        let (platform, bad) = (&platform, bad.to_string());
        async move { job(platform, &["dead-letters", action, "job_configurations", "job_configuration", &bad]).await }
    };
    let still_failing = release("retry").await.expect(4);
    assert!(still_failing.err.contains("no_bad"), "{}", still_failing.err);
    sqlx::query("alter table job_configurations drop constraint no_bad").execute(pool).await.unwrap();
    assert_eq!(release("retry").await.expect(0).out, "1 applied\n");
    platform.get(&format!("job-configurations/{bad}?min_version=1")).send().await.is(200);
    assert_eq!(letters().await, Vec::<Value>::new());
    release("retry").await.expect(3);
    release("skip").await.expect(3);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_reports_its_position_and_can_be_rewound() {
    let platform = Platform::start().await;
    platform.define("one").await;
    platform.define("two").await;
    let published = async || {
        let status = job(&platform, &["relay", "status", "--json"]).await.expect(0).json().pop().unwrap();
        (status["published"] == 2 && status["head"] == 2).then_some(status)
    };
    let status = platform.service.eventually(published).await;
    assert_eq!(status["leaders"], 1);
    let rewound = job(&platform, &["relay", "rewind", "--to", "1", "--json"]).await.expect(0).json();
    assert_eq!(rewound, [json!({ "position": 1 })]);
    let status = platform.service.eventually(published).await;
    assert!(status["leaders"].as_i64().unwrap() >= 2, "{status}");
    let text = job(&platform, &["relay", "status"]).await.expect(0).out;
    assert!(text.contains("2 of 2"), "{text}");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_fails_without_a_database() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_job"));
    command.args(["subscriptions", "--database-url", "postgres://nobody@127.0.0.1:1/none", "--secret", SECRET]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
}
