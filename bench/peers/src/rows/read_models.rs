//! Rows 6 and 7: catch-up rate of a new read model, and delay of a running one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    contestant::{Fate, Sources},
    database::READ_MODEL,
    field::Field,
    measure::micros,
    report::{Table, Verdict},
    settings::Settings,
};

const AGGREGATES: usize = 1_000;
/// The time limit of a catch-up in one round. The rate counts the events until then.
const LIMIT: Duration = Duration::from_secs(6);
/// The time limit for the samples of one contestant in one round, because some are delayed by a second each time.
const SAMPLING: Duration = Duration::from_secs(3);
/// The maximum number of catch-up rounds, which are slow.
const ROUNDS: usize = 3;

/// Adds a note on each contestant's delivery to read models.
fn explain(table: &mut Table, field: &Field) {
    for entry in &field.entries {
        let delivery = entry.contestant.follower().unwrap_or("has no read models");
        table.note(format!("- {}: {delivery}", entry.contestant.name()));
    }
    table.note(String::new());
}

/// Returns the contestants without `epoch-plain`, whose read models work like those of `epoch`.
fn followers(settings: &Settings) -> Vec<String> {
    settings.contestants.iter().filter(|name| *name != "epoch-plain").cloned().collect()
}

pub async fn catch_up(settings: &Settings) -> Result<Vec<Verdict>> {
    let events = AGGREGATES * settings.caught_up_depth;
    let title = format!("6. catch-up of {events} events of {AGGREGATES} aggregates into two tables");
    let mut table = Table::new(&title, "events/s", true, vec!["from the first event".to_owned()]);
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
            // The result is ignored: the task was either finished or out of time.
            let _ = task.await;
            table.value(place, 0, applied);
        }
    }
    explain(&mut table, &field);
    field.close().await;
    Ok(table.print())
}

/// Returns the number of rows in `seen`, from the last identity value.
async fn seen(control: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(max(n), 0) from public.seen").fetch_one(control).await?)
}

pub async fn visible(settings: &Settings) -> Result<Vec<Verdict>> {
    let title = "7. time until an event is visible in the read model, one client";
    let columns = vec!["from the start of the command".to_owned(), "from its result".to_owned()];
    let mut table = Table::new(title, "ms", false, columns);
    let field = Field::open(&settings.server, &followers(settings)).await?;
    for round in 0..settings.rounds {
        for entry in &field.entries {
            let place = entry.place(&mut table);
            if entry.contestant.follower().is_none() {
                continue;
            }
            let live = entry.contestant.go_live(&format!("live_{round}"), Sources::Fastest).await?;
            let (mut whole, mut after) = (Vec::new(), Vec::new());
            let start = Instant::now();
            // The first samples are discarded, because the followers are still starting.
            for sample in 0..settings.visible_samples + 3 {
                if sample > 3 && start.elapsed() > SAMPLING {
                    break;
                }
                let id = Uuid::now_v7();
                let begin = Instant::now();
                live.command(id, 1, Fate::Commit).await?;
                let completed = Instant::now();
                until_visible(&entry.database.control, id).await.with_context(|| entry.contestant.name())?;
                if sample >= 3 {
                    whole.push(micros(begin.elapsed())?);
                    after.push(micros(completed.elapsed())?);
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
        "If the read model is written before the command returns, the second column is the time of one query.\n"
            .to_owned(),
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
