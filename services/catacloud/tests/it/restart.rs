//! Postgres goes down and comes back in the middle: commands are told 503 meanwhile, none is half done, and everything goes
//! on afterwards.

use std::{collections::BTreeSet, time::Duration};

use devstack::servers::{Postgres, Server};
use epoch::testkit::free_ports;
use serde_json::json;

use crate::stack::{Site, Stack, test_kafka, within};

const COMMANDS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_are_whole_or_told_503_while_postgres_restarts() {
    let directory = tempfile::TempDir::new().unwrap();
    let postgres = directory.path().join("postgres");
    let (server, port) = (Postgres::new(&postgres).unwrap(), free_ports());
    let restart = {
        let server = server.clone();
        move || server.start(port).unwrap()
    };
    let url = restart();
    let stack = Stack::colocated_at(Site::new(url, test_kafka())).await;
    let (organization, door) = stack.door.organization("Restart").await;
    let path = format!("/api/v1/organizations/{organization}/job-configurations");
    let command = |number: usize| {
        let body = json!({ "name": format!("configuration {number}"), "command": ["true"], "timeout_ms": 1_000 });
        door.post_as(&format!("command-{number}"), &path, &body).send()
    };

    let mut accepted = BTreeSet::new();
    for number in 0..100 {
        judge(number, command(number).await.unwrap(), &mut accepted).await;
    }
    // The server crashes while commands are under way, and they come back to nobody.
    let under_way = futures::future::join_all((100..200).map(command));
    let crash = async {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.kill()).await.unwrap().unwrap();
        command(0).await.unwrap()
    };
    let (answers, while_it_is_away) = tokio::join!(under_way, crash);
    assert_eq!(while_it_is_away.status(), 503, "also a command that was accepted before");
    for (number, answer) in (100..200).zip(answers) {
        judge(number, answer.unwrap(), &mut accepted).await;
    }
    restart();
    for number in 200..COMMANDS {
        judge(number, command(number).await.unwrap(), &mut accepted).await;
    }
    assert!(accepted.len() >= 100, "before and after: {}", accepted.len());

    // Asked again under the same keys, each is accepted, and each is there once.
    for number in 0..COMMANDS {
        within(Duration::from_secs(30), "commands to be accepted again", async || {
            (command(number).await.unwrap().status().as_u16() == 201).then_some(())
        })
        .await;
    }
    let names = within(Duration::from_secs(30), "the read model", async || {
        let mut names = Vec::new();
        let mut next = Some(format!("{path}?limit=200"));
        while let Some(page) = next {
            let page = door.get(&page).await;
            names
                .extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            next = page["next"].as_str().map(|cursor| format!("{path}?limit=200&cursor={cursor}"));
        }
        (names.len() >= COMMANDS).then_some(names)
    })
    .await;
    assert_eq!(names.len(), COMMANDS);
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), COMMANDS, "each once");
    stack.close().await;
    server.remove().unwrap();
}

/// Either accepted, or told 503 and when to come back.
async fn judge(number: usize, answer: reqwest::Response, accepted: &mut BTreeSet<usize>) {
    match answer.status().as_u16() {
        201 => drop(accepted.insert(number)),
        503 => {
            assert!(answer.headers().contains_key("retry-after"));
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        other => panic!("{other}: {}", answer.text().await.unwrap()),
    }
}
