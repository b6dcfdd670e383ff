//! Operations of each service through the `catacloud` binary: `catacloud <service> …` equals `<service> …`.

use std::process::Output;

use epoch_postgres::testkit::TestDatabase;
use serde_json::{Value, json};

use crate::installation::{Environment, test_kafka};

fn objects(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn catacloud_binary_operates_every_service() {
    let database = TestDatabase::create().await;
    let environment = Environment::new(database.url(), test_kafka());
    environment.run("catacloud", &["migrate"]);
    // Service, one of its subscriptions, and whether the subscription can be rebuilt.
    let services = [
        ("organization", "organizations", true),
        ("file", "files", true),
        ("job", "jobs", true),
        ("billing", "accounts", true),
        ("billing", "runs", true),
        ("billing", "storage-changes", true),
        ("billing", "open_accounts", false),
    ];
    for (service, subscription, rebuildable) in services {
        let listed = environment.output("catacloud", &[service, "subscriptions", "--json"]);
        assert_eq!(exit_code(&listed), 0, "{service}: {}", String::from_utf8_lossy(&listed.stderr));
        let listed = objects(&listed);
        let subscription_entry = listed.iter().find(|listed| listed["subscription"] == subscription);
        let entry = subscription_entry.unwrap_or_else(|| panic!("{service} has no {subscription}: {listed:?}"));
        assert_eq!((&entry["rebuildable"], &entry["generation"]), (&json!(rebuildable), &json!(1)), "{entry}");

        let relay = environment.output("catacloud", &[service, "relay", "status", "--json"]);
        assert_eq!(objects(&relay), [json!({ "published": 0, "head": 0, "leaders": 0 })], "{service}");
        let letters = environment.output("catacloud", &[service, "dead-letters", "list", "--json"]);
        assert_eq!((exit_code(&letters), objects(&letters)), (0, vec![]), "{service}");
        assert_eq!(exit_code(&environment.output("catacloud", &[service, "rebuild", "nothing"])), 3, "{service}");
        let rebuilt = environment.output("catacloud", &[service, "rebuild", subscription, "--json"]);
        assert_eq!(
            exit_code(&rebuilt),
            if rebuildable { 0 } else { 4 },
            "{}",
            String::from_utf8_lossy(&rebuilt.stderr)
        );
        if rebuildable {
            let expected = json!({ "subscription": subscription, "generation": 2, "applied": 0, "resumed": false });
            assert_eq!(objects(&rebuilt), [expected]);
        } else {
            let stderr = String::from_utf8_lossy(&rebuilt.stderr).into_owned();
            assert!(stderr.contains("no tables of its own"), "{stderr}");
        }
    }
    // The operation reads the events of the named service only.
    let id = uuid::Uuid::now_v7().to_string();
    assert_eq!(exit_code(&environment.output("catacloud", &["file", "events", "job", &id])), 3);
    assert_eq!(exit_code(&environment.output("catacloud", &["unknown", "subscriptions"])), 2);
    database.drop().await;
}
