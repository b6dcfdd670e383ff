//! Rows 6 and 7: how fast a new read model catches up, and how late a running one is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    contestant::{Fate, Ways},
    database::READ_MODEL,
    field::Field,
    measure::micros,
    report::{Table, Verdict},
    settings::Settings,
};

const AGGREGATES: usize = 1_000;
/// The longest that one contestant may catch up in one round; its rate is what it did until then.
const LIMIT: Duration = Duration::from_secs(6);
/// The longest that samples of one contestant are taken in one round; some are late by a second each time.
const SAMPLING: Duration = Duration::from_secs(3);
/// Catching up takes long, so it has fewer rounds.
const ROUNDS: usize = 3;

/// Says how each keeps its read models.
fn explain(table: &mut Table, field: &Field) {
    for entry in &field.entries {
        let way = entry.contestant.follower().unwrap_or("has no read models");
        table.note(format!("- {}: {way}", entry.contestant.name()));
    }
    table.note(String::new());
}

/// Ours with and without batches follow in the same way: once is enough.
fn followers(settings: &Settings) -> Vec<String> {
    settings.contestants.iter().filter(|name| *name != "epoch-plain").cloned().collect()
}

pub async fn catch_up(settings: &Settings) -> Result<Vec<Verdict>> {
    let events = AGGREGATES * settings.caught_up_depth;
    let title = format!("6. catch-up of {events} events of {AGGREGATES} aggregates into two tables");
    let mut table = Table::new(&title, "events/s", true, vec!["from the beginning".to_owned()]);
    let field = Field::open(&settings.server, &followers(settings)).await?;
    for entry in &field.entries {
        if entry.contestant.follower().is_some() {
            let seeded = entry.seed(AGGREGATES - 1, settings.caught_up_depth).await;
            seeded.with_context(|| format!("seeding {}", entry.contestant.name()))?;
        }
    }
    for round in 0..settings.rounds.min(ROUNDS) {
        for entry in &field.entries {
            let place = entry.place(&mut table);
            if entry.contestant.follower().is_none() {
                continue;
            }
            sqlx::raw_sql(READ_MODEL).execute(&entry.database.control).await?;
            let contestant = entry.contestant.clone();
            let start = Instant::now();
            let task = tokio::spawn(async move { contestant.catch_up(&format!("catch_up_{round}")).await });
            let applied = loop {
                let elapsed = start.elapsed();
                let applied = seen(&entry.database.control).await?;
                if applied >= i64::try_from(events)? || elapsed > LIMIT {
                    break applied as f64 / elapsed.as_secs_f64();
                }
                if task.is_finished() {
                    let applied = seen(&entry.database.control).await?;
                    ensure!(
                        applied >= i64::try_from(events)?,
                        "{} ended after {applied} of {events} events",
                        entry.contestant.name()
                    );
                    break applied as f64 / start.elapsed().as_secs_f64();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            task.abort();
            // Whatever it says, it was either done or out of time.
            let _ = task.await;
            table.value(place, 0, applied);
        }
    }
    explain(&mut table, &field);
    field.close().await;
    Ok(table.print())
}

/// Rows in the second table, by the last number that was drawn for it.
async fn seen(control: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(max(n), 0) from public.seen").fetch_one(control).await?)
}

pub async fn visible(settings: &Settings) -> Result<Vec<Verdict>> {
    let title = "7. a command until its event is visible in the read model, one client";
    let columns = vec!["with the command".to_owned(), "after the command's answer".to_owned()];
    let mut table = Table::new(title, "ms", false, columns);
    let field = Field::open(&settings.server, &followers(settings)).await?;
    for round in 0..settings.rounds {
        for entry in &field.entries {
            let place = entry.place(&mut table);
            if entry.contestant.follower().is_none() {
                continue;
            }
            let live = entry.contestant.go_live(&format!("live_{round}"), Ways::Fastest).await?;
            let (mut whole, mut after) = (Vec::new(), Vec::new());
            let start = Instant::now();
            // The first ones find nothing running yet.
            for sample in 0..settings.visible_samples + 3 {
                if sample > 3 && start.elapsed() > SAMPLING {
                    break;
                }
                let id = Uuid::now_v7();
                let begin = Instant::now();
                live.command(id, 1, Fate::Commit).await?;
                let answered = Instant::now();
                until_visible(&entry.database.control, id).await.with_context(|| entry.contestant.name())?;
                if sample >= 3 {
                    whole.push(micros(begin.elapsed())?);
                    after.push(micros(answered.elapsed())?);
                }
            }
            for (column, mut latencies) in [whole, after].into_iter().enumerate() {
                latencies.sort_unstable();
                let middle = latencies.get(latencies.len() / 2).context("a sample")?;
                table.value(place, column, f64::from(*middle) / 1_000.0);
                table.latencies(place, column, latencies);
            }
        }
    }
    table.note(
        "Where the read model is written before the command answers, the second column is one look at it.\n".to_owned(),
    );
    explain(&mut table, &field);
    field.close().await;
    Ok(table.print())
}

async fn until_visible(control: &PgPool, id: Uuid) -> Result<()> {
    let start = Instant::now();
    let look = "select exists (select 1 from public.totals where id = $1)";
    while !sqlx::query_scalar::<_, bool>(look).bind(id.to_string()).fetch_one(control).await? {
        ensure!(start.elapsed() < Duration::from_secs(20), "not visible after 20 s");
        if start.elapsed() > Duration::from_millis(20) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}
