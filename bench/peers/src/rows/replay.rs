//! Row 5: the state of an aggregate of many events.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    field::Field,
    measure::micros,
    report::{Table, Verdict},
    settings::Settings,
};
use anyhow::{Context, Result, bail};

/// Loads of a round: of all events, and from a snapshot, which are over so soon that the first of each connection would be what counts.
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
        // One aggregate for each way, as a contestant may keep a snapshot wherever it finds none.
        let &[whole, kept] = ids.as_slice() else { bail!("two aggregates were asked for") };
        entry.contestant.forget_snapshot(whole).await?;
        entry.contestant.load_snapshot(kept).await?;
        seeds.push((whole, kept));
    }
    let expected = u64::try_from(events)?;
    let mut wrong = BTreeSet::new();
    for _ in 0..settings.rounds {
        for (entry, &(whole, kept)) in field.entries.iter().zip(&seeds) {
            let place = entry.place(&mut table);
            for (column, (from_snapshot, loads)) in [false, true].into_iter().zip(LOADS).enumerate() {
                let mut latencies = Vec::new();
                for _ in 0..loads {
                    let begin = Instant::now();
                    let loaded = if from_snapshot {
                        entry.contestant.load_snapshot(kept).await?
                    } else {
                        Some(entry.contestant.replay(whole).await?)
                    };
                    let Some(loaded) = loaded else { break };
                    let latency = micros(begin.elapsed())?;
                    // How fast a wrong state comes is no measure.
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
