//! Loading an aggregate with 10,000 events of 230 bytes: from all events, from a snapshot and from a state row. Also streams the
//! events as envelopes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use epoch::{
    Aggregate, CommandContext, Repository, Version,
    FastPath,
    snapshot::{SnapshotPolicy, SnapshotStore, Snapshots},
    store::{Append, Appender, NewEvent, Streamer},
};
use epoch_postgres::{PgBlobStates, PgSnapshots, PgStore, testkit::TestDatabase};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    note::{Note, NoteEvent, Noted, text},
    report::percentile,
    statistics::median,
};

const EVENTS: usize = 10_000;
const ROUNDS: usize = 30;

fn show(label: &str, times: &[Duration]) {
    let micros: Vec<u64> = times.iter().map(|time| time.as_micros() as u64).collect();
    let millis: Vec<f64> = micros.iter().map(|micros| *micros as f64 / 1_000.0).collect();
    let [fastest, slowest] = [0.0, 1.0].map(|part| percentile(&micros, part));
    println!("| {label} | {:.2} ms ({fastest:.2}–{slowest:.2}) |", median(&millis));
}

pub async fn run(server: &str) -> Result<()> {
    let event = NoteEvent::from(Noted { text: text() });
    let database = TestDatabase::create_on(server).await;
    let pool = database.epoch().await;
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let id = Uuid::now_v7();
    for start in (0..EVENTS).step_by(500) {
        let events = (0..500).map(|_| NewEvent::encode(&event)).collect::<Result<_, _>>()?;
        let expected = Version::new(start as u64);
        let context = CommandContext::new();
        store
            .append(Append { aggregate: Note::NAME, aggregate_id: id, expected, previous: None, events, context })
            .await?;
    }
    let (snapshots, writer) = Snapshots::new(Arc::new(PgSnapshots::new(pool.clone())));
    tokio::spawn(writer.run());
    let plain = Repository::<Note, _>::new(store.clone()).with_cache(0);
    let with_snapshot = plain.clone().with_snapshots(&snapshots, SnapshotPolicy::Every(100));
    let with_states = plain.clone().with_states(Arc::new(PgBlobStates::new()));
    let snapshot_store = PgSnapshots::new(pool);
    with_snapshot.load(id).await?;
    while snapshot_store.newest(Note::NAME, id).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    with_states.execute(id, &text(), &CommandContext::new()).await?;
    println!("\n## load of {EVENTS} events ({ROUNDS} rounds)\n");
    println!("| from | median (range) |");
    println!("|---|---|");
    for (label, repository) in [("all events", &plain), ("a snapshot", &with_snapshot), ("a state row", &with_states)] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            repository.load(id).await?;
            times.push(start.elapsed());
        }
        show(label, &times);
    }
    let (mut visited, mut streamed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut bytes = 0;
        store
            .visit(Note::NAME, id, epoch::Versions::all(), &mut |event| {
                bytes += event.payload.len();
                Ok(())
            })
            .await?;
        visited.push(start.elapsed());
        let start = Instant::now();
        let mut events = store.stream(Note::NAME, id, Version::ZERO);
        while let Some(event) = events.try_next().await? {
            bytes += event.payload.len();
        }
        streamed.push(start.elapsed());
        anyhow::ensure!(bytes > EVENTS);
    }
    show("visited, not decoded", &visited);
    show("streamed as envelopes, not decoded", &streamed);
    database.drop().await;
    Ok(())
}
