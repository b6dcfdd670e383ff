//! Commands per second with 1, 8 and 32 clients, each on its own aggregate.
//!
//! The baseline is one INSERT per transaction: pgbench on the same server, in turns, with a table of the same columns and the same
//! unique index.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use epoch::{CommandContext, Repository, FastPath};
use epoch_postgres::{PgStore, testkit::TestDatabase};
use uuid::Uuid;

use crate::{
    note::{Note, text},
    report::Row,
    statistics::median,
};

const ROUNDS: usize = 5;
const SECONDS: u64 = 4;

const TABLE: &str = include_str!("single_table.sql");

/// Inserts one event of the same size, for a new aggregate.
const INSERT: &str = "insert into single (aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
     occurred_at, recorded_at) values ('note', gen_random_uuid(), 1, gen_random_uuid(), 'Noted', 7, \
     convert_to(repeat('x', 232), 'UTF8'), '{\"command_id\":\"01a1fd7b-18da-757b-bd01-c155addc4444\",\
     \"correlation_id\":\"01a1fd7b-18da-757b-bd01-c155addc4444\"}', 1, 1);";

pub async fn run(server: &str, pgbench: &str) -> Result<()> {
    let database = TestDatabase::create_on(server).await;
    let pool = database.epoch().await;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let (store, appender) = PgStore::new(pool, FastPath::new());
    let appender = tokio::spawn(appender.run());
    let script = std::env::temp_dir().join(format!("single-insert-{}.sql", std::process::id()));
    std::fs::write(&script, INSERT)?;
    println!("\n## commands per second, each client on its own aggregate ({ROUNDS} rounds in turns of {SECONDS} s)\n");
    println!(
        "| clients | Epoch, median (range) | p50 | p99 | repeatable commands | pgbench single insert, median (range) | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for clients in [1, 8, 32] {
        let (mut ours, mut repeatable, mut theirs) = (Row::default(), Row::default(), Row::default());
        for _ in 0..ROUNDS {
            ours.add(commands(&store, clients, false).await?);
            repeatable.add(commands(&store, clients, true).await?);
            theirs.rates.push(single_inserts(pgbench, &database, &script, clients).await?);
        }
        println!(
            "| {clients} | {} | {:.2} ms | {:.2} ms | {} | {} | {:.2} |",
            ours.shown(),
            ours.percentile(0.50),
            ours.percentile(0.99),
            repeatable.shown(),
            theirs.shown(),
            median(&ours.rates) / median(&theirs.rates),
        );
    }
    std::fs::remove_file(script)?;
    drop(store);
    appender.await?;
    database.drop().await;
    Ok(())
}

/// Executes commands for `SECONDS`. Returns the latencies in microseconds and the rate.
async fn commands(store: &PgStore, clients: usize, repeatable: bool) -> Result<(Vec<u64>, f64)> {
    let notes = Repository::<Note, _>::new(store.clone());
    let start = Instant::now();
    let tasks = (0..clients).map(|_| {
        let notes = notes.clone();
        tokio::spawn(async move {
            let (id, text) = (Uuid::now_v7(), text());
            let mut latencies = Vec::with_capacity(10_000);
            while start.elapsed() < Duration::from_secs(SECONDS) {
                let begin = Instant::now();
                let context = CommandContext::new();
                let context = if repeatable { context.repeatable(Uuid::now_v7(), *b"body") } else { context };
                notes.execute(id, &text, &context).await?;
                latencies.push(u64::try_from(begin.elapsed().as_micros())?);
            }
            anyhow::Ok(latencies)
        })
    });
    let mut all = Vec::new();
    for task in futures::future::join_all(tasks).await {
        all.extend(task??);
    }
    let rate = all.len() as f64 / start.elapsed().as_secs_f64();
    Ok((all, rate))
}

/// Measures the single insert through the store's driver with one client: the overhead of the driver and the runtime.
pub async fn driver_floor(server: &str) -> Result<()> {
    let database = TestDatabase::create_on(server).await;
    let pool = database.epoch().await;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let mut connection = pool.acquire().await?;
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let begin = Instant::now();
        sqlx::query(INSERT).execute(&mut *connection).await?;
        latencies.push(u64::try_from(begin.elapsed().as_micros())?);
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    println!("one client, driver only: {rate:.0}/s, p50 {:.2} ms", crate::report::percentile(&latencies, 0.5));
    drop(connection);
    database.drop().await;
    Ok(())
}

async fn single_inserts(
    pgbench: &str,
    database: &TestDatabase,
    script: &std::path::Path,
    clients: usize,
) -> Result<f64> {
    let threads = clients.min(2).to_string();
    let output = tokio::process::Command::new(pgbench)
        .args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", &threads, "-T", &SECONDS.to_string(), "-f"])
        .arg(script)
        .arg(database.url())
        .env("PGOPTIONS", "-c search_path=test")
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("running {pgbench}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(rate) = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok()) else {
        bail!("pgbench printed no rate: {text}");
    };
    Ok(rate)
}
