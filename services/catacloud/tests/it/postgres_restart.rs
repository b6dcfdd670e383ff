//! Postgres crashes and restarts during commands. Meanwhile commands get 503, none is applied partially, and all succeed
//! after the restart.

use std::{collections::BTreeSet, time::Duration};

use devstack::servers::{Postgres, Server};
use epoch::testkit::free_ports;
use serde_json::json;

use crate::installation::{Environment, Installation, test_kafka, within};

const COMMANDS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_apply_fully_or_get_503_while_postgres_restarts() {
    let directory = tempfile::TempDir::new().unwrap();
    let postgres = directory.path().join("postgres");
    let (server, port) = (Postgres::new(&postgres).unwrap(), free_ports());
    let restart = {
        let server = server.clone();
        move || server.start(port).unwrap()
    };
    let url = restart();
    let installation = Installation::colocated_in(Environment::new(url, test_kafka())).await;
    let (organization, client) = installation.api.create_organization("Restart").await;
    let path = format!("/api/v1/organizations/{organization}/job-configurations");
    let command = |number: usize| {
        let body = json!({ "name": format!("configuration {number}"), "command": ["true"], "timeout_ms": 1_000 });
        client.post_with_key(&format!("command-{number}"), &path, &body).send()
    };

    let mut accepted = BTreeSet::new();
    for number in 0..100 {
        record_result(number, command(number).await.unwrap(), &mut accepted).await;
    }
    // The server crashes while commands are in flight.
    let in_flight = futures::future::join_all((100..200).map(command));
    let crash = async {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.kill()).await.unwrap().unwrap();
        command(0).await.unwrap()
    };
    let (responses, response_during_crash) = tokio::join!(in_flight, crash);
    assert_eq!(response_during_crash.status(), 503, "even for a command that was accepted before");
    for (number, response) in (100..200).zip(responses) {
        record_result(number, response.unwrap(), &mut accepted).await;
    }
    restart();
    for number in 200..COMMANDS {
        record_result(number, command(number).await.unwrap(), &mut accepted).await;
    }
    assert!(accepted.len() >= 100, "before and after: {}", accepted.len());

    // Repeated under the same keys, each command is accepted, and each configuration exists once.
    for number in 0..COMMANDS {
        within(Duration::from_secs(30), "the repeated commands to be accepted", async || {
            (command(number).await.unwrap().status().as_u16() == 201).then_some(())
        })
        .await;
    }
    let names = within(Duration::from_secs(30), "the read model to catch up", async || {
        let mut names = Vec::new();
        let mut next = Some(format!("{path}?limit=200"));
        while let Some(page) = next {
            let page = client.get(&page).await;
            names
                .extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            next = page["next"].as_str().map(|cursor| format!("{path}?limit=200&cursor={cursor}"));
        }
        (names.len() >= COMMANDS).then_some(names)
    })
    .await;
    assert_eq!(names.len(), COMMANDS);
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), COMMANDS, "each once");
    installation.close().await;
    server.remove().unwrap();
}

/// Records an accepted command; any other response must be a 503 with `Retry-After`.
async fn record_result(number: usize, response: reqwest::Response, accepted: &mut BTreeSet<usize>) {
    match response.status().as_u16() {
        201 => drop(accepted.insert(number)),
        503 => {
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        other => panic!("{other}: {}", response.text().await.unwrap()),
    }
}
