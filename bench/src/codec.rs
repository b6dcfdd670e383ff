//! Time to encode and decode an event of 230 bytes, in nanoseconds.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use epoch::DomainEvent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    note::{NoteEvent, Noted, text},
    report::Row,
};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
/// The number of operations between two reads of the clock.
const BATCH: u32 = 1_000;

/// An event with fields of all common types; 230 bytes encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ordered {
    order_id: Uuid,
    customer: Uuid,
    at: i64,
    state: State,
    lines: Vec<Line>,
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Paid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    count: i64,
}

const ORDERED: &str = include_str!("codec/Ordered.avsc");
const ORDERED_BEFORE: &str = include_str!("codec/Ordered.1.avsc");

epoch::events! {
    /// Events with fields of all common types.
    enum OrderEvent { Ordered = [ORDERED, ORDERED_BEFORE] }
}

pub fn run() -> Result<()> {
    println!("\n## codec, ns per event (median and range of {ROUNDS} rounds)\n");
    println!("| event | bytes | encode | decode | decode of an earlier schema |");
    println!("|---|---|---|---|---|");
    let noted = NoteEvent::from(Noted { text: text() });
    let encoded = noted.encode()?;
    println!(
        "| one text | {} | {} | {} | – |",
        encoded.payload.len(),
        nanoseconds(|| black_box(&noted).encode()),
        nanoseconds(|| NoteEvent::decode("Noted", encoded.schema, black_box(&encoded.payload))),
    );
    let line = |article: &str| Line { article: article.repeat(4), count: 3 };
    let ordered = Ordered {
        order_id: Uuid::from_u128(1 << 100),
        customer: Uuid::from_u128(7 << 90),
        at: 1_790_000_000_000,
        state: State::Paid,
        lines: vec![line("0123456"), line("abcdefg"), line("hijklmn"), line("opqrst")],
        note: Some("please ring twice, then wait".to_owned()),
    };
    let event = OrderEvent::from(ordered.clone());
    let encoded = event.encode()?;
    let before = earlier(&ordered)?;
    anyhow::ensure!(
        OrderEvent::decode("Ordered", before.schema, &before.payload)? != event,
        "the earlier schema has no note"
    );
    println!(
        "| all field types | {} | {} | {} | {} |",
        encoded.payload.len(),
        nanoseconds(|| black_box(&event).encode()),
        nanoseconds(|| OrderEvent::decode("Ordered", encoded.schema, black_box(&encoded.payload))),
        nanoseconds(|| OrderEvent::decode("Ordered", before.schema, black_box(&before.payload))),
    );
    Ok(())
}

fn earlier(ordered: &Ordered) -> Result<epoch::event::EncodedEvent> {
    #[derive(Serialize)]
    #[serde(rename = "Ordered")]
    struct Before<'a> {
        order_id: Uuid,
        customer: Uuid,
        at: i64,
        state: &'a State,
        lines: &'a [Line],
    }
    let Ordered { order_id, customer, at, state, lines, .. } = ordered;
    let before = Before { order_id: *order_id, customer: *customer, at: *at, state, lines };
    Ok(epoch::avro::AvroCodec::new("Ordered", &[ORDERED_BEFORE])?.encode(&before)?)
}

fn nanoseconds<T>(mut operation: impl FnMut() -> T) -> String {
    let mut row = Row::default();
    for _ in 0..ROUNDS {
        let (start, mut done) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            (0..BATCH).for_each(|_| drop(black_box(operation())));
            done += BATCH;
        }
        row.rates.push(start.elapsed().as_nanos() as f64 / f64::from(done));
    }
    row.shown()
}
