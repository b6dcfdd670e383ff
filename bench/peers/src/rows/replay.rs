//! Row 5: loading the state of an aggregate with many events.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    field::Field,
    measure::micros,
    report::{Table, Verdict},
    settings::Settings,
};
use anyhow::{Context, Result, bail};

/// The number of loads per round from all events and from a snapshot. Snapshot loads are short, so more of them are needed to
/// outweigh the first load of each connection.
const LOADS: [usize; 2] = [5, 100];

pub async fn replay(settings: &Settings) -> Result<Vec<Verdict>> {
    let events = settings.replayed_events;
    let title = format!("5. the state of {events} events");
    let columns = vec!["all events".to_owned(), "from a snapshot".to_owned()];
    let mut table = Table::new(&title, "ms", false, columns);
    let field = Field::open(&settings.server, &settings.contestants).await?;
    let mut seeds = Vec::new();
    for entry in &field.entries {
        let ids = entry.seed(2, events).await.with_context(|| format!("seeding {}", entry.contestant.name()))?;
        // Separate aggregates, because a contestant may write a snapshot at any load without one.
        let &[whole, snapshotted] = ids.as_slice() else { bail!("expected two aggregates") };
        entry.contestant.forget_snapshot(whole).await?;
        entry.contestant.load_snapshot(snapshotted).await?;
        seeds.push((whole, snapshotted));
    }
    let expected = u64::try_from(events)?;
    let mut wrong = BTreeSet::new();
    for _ in 0..settings.rounds {
        for (entry, &(whole, snapshotted)) in field.entries.iter().zip(&seeds) {
            let place = entry.place(&mut table);
            for (column, (from_snapshot, loads)) in [false, true].into_iter().zip(LOADS).enumerate() {
                let mut latencies = Vec::new();
                for _ in 0..loads {
                    let begin = Instant::now();
                    let loaded = if from_snapshot {
                        entry.contestant.load_snapshot(snapshotted).await?
                    } else {
                        Some(entry.contestant.replay(whole).await?)
                    };
                    let Some(loaded) = loaded else { break };
                    let latency = micros(begin.elapsed())?;
                    // The time of a wrong state does not count.
                    if loaded == expected {
                        latencies.push(latency);
                    } else {
                        wrong.insert(format!(
                            "{}: **wrong**, its state {} counts {loaded} events of {expected}.",
                            entry.contestant.name(),
                            if from_snapshot { "from a snapshot" } else { "from all events" },
                        ));
                    }
                }
                if latencies.is_empty() {
                    continue;
                }
                latencies.sort_unstable();
                let middle = latencies.get(latencies.len() / 2).context("a load")?;
                table.value(place, column, f64::from(*middle) / 1_000.0);
                table.latencies(place, column, latencies);
            }
        }
    }
    for note in wrong {
        table.note(format!("- {note}"));
    }
    table.note(String::new());
    field.close().await;
    Ok(table.print())
}
