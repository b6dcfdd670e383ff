//! Each service is looked after by the one binary as well: `catacloud <service> …` is what `<service> …` is.

use std::process::Output;

use epoch_postgres::testkit::TestDatabase;
use serde_json::{Value, json};

use crate::installation::{Site, test_kafka};

fn objects(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_services_are_looked_after_by_the_one_binary() {
    let database = TestDatabase::create().await;
    let site = Site::new(database.url(), test_kafka());
    site.run("catacloud", &["migrate"]);
    // The service, a subscription of its own, and whether that can be rebuilt.
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
        let listed = site.ended("catacloud", &[service, "subscriptions", "--json"]);
        assert_eq!(code(&listed), 0, "{service}: {}", String::from_utf8_lossy(&listed.stderr));
        let listed = objects(&listed);
        let found = listed.iter().find(|listed| listed["subscription"] == subscription);
        let found = found.unwrap_or_else(|| panic!("{service} has no {subscription}: {listed:?}"));
        assert_eq!((&found["rebuildable"], &found["generation"]), (&json!(rebuildable), &json!(1)), "{found}");

        let relay = site.ended("catacloud", &[service, "relay", "status", "--json"]);
        assert_eq!(objects(&relay), [json!({ "published": 0, "head": 0, "leaders": 0 })], "{service}");
        let letters = site.ended("catacloud", &[service, "dead-letters", "list", "--json"]);
        assert_eq!((code(&letters), objects(&letters)), (0, vec![]), "{service}");
        assert_eq!(code(&site.ended("catacloud", &[service, "rebuild", "nothing"])), 3, "{service}");
        let rebuilt = site.ended("catacloud", &[service, "rebuild", subscription, "--json"]);
        assert_eq!(code(&rebuilt), if rebuildable { 0 } else { 4 }, "{}", String::from_utf8_lossy(&rebuilt.stderr));
        if rebuildable {
            let expected = json!({ "subscription": subscription, "generation": 2, "applied": 0, "resumed": false });
            assert_eq!(objects(&rebuilt), [expected]);
        } else {
            let why = String::from_utf8_lossy(&rebuilt.stderr).into_owned();
            assert!(why.contains("no tables of its own"), "{why}");
        }
    }
    // It is that service's log that is meant.
    let id = uuid::Uuid::now_v7().to_string();
    assert_eq!(code(&site.ended("catacloud", &["file", "events", "job", &id])), 3);
    assert_eq!(code(&site.ended("catacloud", &["nobody", "subscriptions"])), 2);
    database.drop().await;
}
