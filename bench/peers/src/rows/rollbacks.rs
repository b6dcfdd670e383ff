//! Row 8: correctness of a follower while writers roll back.
//!
//! Sequence numbers are drawn before the commit, so a later number may become visible first. A follower that has passed it misses the
//! earlier one. Data that is written outside the transaction may arrive twice, late or never.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::{
    contestant::{Fate, Sources},
    field::{Entry, Field},
    report::Verdict,
    settings::Settings,
};

const WRITERS: usize = 12;
const AGGREGATES: usize = 24;

pub async fn rollbacks(settings: &Settings) -> Result<Vec<Verdict>> {
    println!("\n## 8. follower with {WRITERS} writers on {AGGREGATES} aggregates, one command in four rolled back\n");
    println!("| | events | commands rolled back | missed | duplicated | reordered | not in the store |");
    println!("|---|---|---|---|---|---|---|");
    let names: Vec<String> = settings.contestants.iter().filter(|name| *name != "epoch-plain").cloned().collect();
    let field = Field::open(&settings.server, &names).await?;
    for entry in &field.entries {
        let name = entry.contestant.name();
        if entry.contestant.follower().is_none() {
            println!("| {name} | has no read models | | | | | |");
            continue;
        }
        let seen = follow(entry, settings).await.with_context(|| name)?;
        println!("| {name} | {seen} |");
    }
    println!("\n\"conflicts only\": the caller cannot roll back, so only conflicting commands are rolled back.");
    field.close().await;
    Ok(vec![])
}

/// Runs the writers and the follower. Returns the cells of the table's row.
async fn follow(entry: &Entry, settings: &Settings) -> Result<String> {
    let live = entry.contestant.go_live("rollbacks", Sources::All).await?;
    let ids: Vec<Uuid> = (0..AGGREGATES).map(|_| Uuid::now_v7()).collect();
    let start = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let (live, ids) = (&live, &ids);
        async move {
            let mut rolled_back = 0_usize;
            for turn in 0.. {
                if start.elapsed() > settings.rollbacks {
                    break;
                }
                // A deterministic spread over aggregates, sizes, fates and pauses.
                let dice = (turn * WRITERS + writer).wrapping_mul(2_654_435_761) >> 7;
                let pause = Duration::from_micros(u64::try_from(dice % 3_000)?);
                let fate = match turn % 4 {
                    0 => Fate::RollBackAfter(pause),
                    1 => Fate::CommitAfter(pause),
                    _ => Fate::Commit,
                };
                if !live.command(ids[dice % AGGREGATES], 1 + dice % 3, fate).await? {
                    rolled_back += 1;
                }
            }
            anyhow::Ok(rolled_back)
        }
    });
    let rolled_back: usize = futures::future::try_join_all(writers).await?.into_iter().sum();
    settle(entry).await?;
    let rolled_back = if live.rolls_back() { rolled_back.to_string() } else { "conflicts only".to_owned() };
    let [events, missed, duplicated, reordered, unknown] = count_anomalies(entry).await?;
    Ok(format!("{events} | {rolled_back} | {missed} | {duplicated} | {reordered} | {unknown}"))
}

/// Waits until the follower has as many events as the store, or has made no progress for 4 s.
async fn settle(entry: &Entry) -> Result<()> {
    let control = &entry.database.control;
    let log = sqlx::AssertSqlSafe(format!("select count(*) from ({}) as log", entry.contestant.log()));
    let all: i64 = sqlx::query_scalar(log).fetch_one(control).await?;
    let (mut last, mut moved) = (-1, Instant::now());
    while moved.elapsed() < Duration::from_secs(4) {
        let now: i64 = sqlx::query_scalar("select count(*) from public.seen").fetch_one(control).await?;
        if now >= all {
            break;
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Duplicates may arrive later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Returns five counts: events in the store, and events that the follower missed, duplicated, reordered, or saw although they are
/// not in the store.
async fn count_anomalies(entry: &Entry) -> Result<[i64; 5]> {
    let log = entry.contestant.log();
    let queries = [
        format!("select count(*) from ({log}) as log"),
        format!("select count(*) from ({log} except select id, version from public.seen) as missed"),
        "select coalesce(sum(times - 1), 0)::bigint from \
         (select count(*) as times from public.seen group by id, version) as counted"
            .to_owned(),
        "select count(*) from (select version, lag(version) over (partition by id order by n) as before from public.seen) \
         as ordered where version < before"
            .to_owned(),
        format!("select count(*) from (select id, version from public.seen except ({log})) as unknown"),
    ];
    let mut counts = [0; 5];
    for (count, query) in counts.iter_mut().zip(queries) {
        *count = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&entry.database.control).await?;
    }
    Ok(counts)
}
