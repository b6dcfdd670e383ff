//! Events in former shapes, read by the current program: `cargo run -p epoch --example evolution`.
//!
//! One fact had three shapes: `Paid` with its amount as text, `MoneyIn` without a note, and now `MoneyIn` with a note.
//! Stored events are never changed.

use epoch::{
    Aggregate, CommandContext, Repository, Version,
    avro::{self, AvroEvent},
    event::CodecError,
    memory::MemoryStore,
    store::{Append, Appender, NewEvent, StoreError},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The current shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MoneyIn {
    cents: i64,
    currency: String,
    note: Option<String>,
}

const MONEY_IN: &str = r#"{"type": "record", "name": "MoneyIn", "fields": [
    {"name": "cents", "type": "long"}, {"name": "currency", "type": "string"},
    {"name": "note", "type": ["null", "string"], "default": null}]}"#;
/// The schema without `note`. Avro resolves it with the field's default.
const WITHOUT_NOTE: &str = r#"{"type": "record", "name": "MoneyIn", "fields": [
    {"name": "cents", "type": "long"}, {"name": "currency", "type": "string"}]}"#;

/// The value that an older program wrote.
#[derive(Serialize)]
#[serde(rename = "MoneyIn")]
struct WithoutNote {
    cents: i64,
    currency: String,
}

/// The first shape. Avro cannot resolve text to a number, so a function converts it.
#[derive(Serialize, Deserialize)]
struct Paid {
    amount: String,
}
const PAID: &str = r#"{"type": "record", "name": "Paid", "fields": [{"name": "amount", "type": "string"}]}"#;

/// A former event that is now two events.
#[derive(Serialize, Deserialize)]
struct Corrected {
    wrong: i64,
    right: i64,
}
const CORRECTED: &str = r#"{"type": "record", "name": "Corrected", "fields": [
    {"name": "wrong", "type": "long"}, {"name": "right", "type": "long"}]}"#;

/// A former event that is now dropped.
#[derive(Serialize, Deserialize)]
struct LookedAt {}
const LOOKED_AT: &str = r#"{"type": "record", "name": "LookedAt", "fields": []}"#;

epoch::events! {
    enum PurseEvent { MoneyIn = [MONEY_IN, WITHOUT_NOTE] }
    upcast {
        "Paid" as Paid = [PAID] => |old| euros(cents_of(&old.amount)),
    }
    split {
        "Corrected" as Corrected = [CORRECTED] => |old| [euros(-old.wrong).into(), euros(old.right).into()],
        "LookedAt" as LookedAt = [LOOKED_AT] => |_| [],
    }
}

fn euros(cents: i64) -> MoneyIn {
    MoneyIn { cents, currency: "EUR".to_owned(), note: None }
}

/// Converts an amount such as "12.34" to cents. An upcaster cannot fail, because its input was validated when it was
/// written.
fn cents_of(amount: &str) -> i64 {
    let (euros, cents) = amount.split_once('.').unwrap_or((amount, "0"));
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    number(euros) * 100 + number(cents)
}

#[derive(Debug, thiserror::Error)]
#[error("a purse accepts no commands")]
struct Never;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Purse {
    cents: i64,
}

impl Aggregate for Purse {
    const NAME: &'static str = "purse";
    type Command = ();
    type Event = PurseEvent;
    type Error = Never;

    fn decide(&self, (): &()) -> Result<Vec<PurseEvent>, Never> {
        Err(Never)
    }

    fn evolve(&mut self, event: &PurseEvent) {
        let PurseEvent::MoneyIn(money) = event;
        println!("  {money:?}");
        self.cents += money.cents;
    }
}

/// Encodes an event as an older program stored it.
fn stored<E: AvroEvent>(name: &'static str, event: &E) -> Result<NewEvent, CodecError> {
    Ok(NewEvent { event_id: Uuid::now_v7(), name, encoded: avro::encode(event)? })
}

/// Runs the example and returns the purse's balance and version.
pub(crate) async fn run() -> Result<(i64, Version), StoreError> {
    let before_notes = avro::AvroCodec::new("MoneyIn", &[WITHOUT_NOTE])?;
    let money = WithoutNote { cents: 500, currency: "EUR".to_owned() };
    let events = vec![
        stored("Paid", &Paid { amount: "12.34".to_owned() })?,
        stored("LookedAt", &LookedAt {})?,
        NewEvent { event_id: Uuid::now_v7(), name: "MoneyIn", encoded: before_notes.encode(&money)? },
        stored("Corrected", &Corrected { wrong: 500, right: 600 })?,
        stored("MoneyIn", &euros(1))?,
    ];
    println!("stored: {}", events.iter().map(|event| event.name).collect::<Vec<_>>().join(", "));
    let (store, id) = (MemoryStore::new(), Uuid::now_v7());
    let context = CommandContext::new();
    let append =
        Append { aggregate: Purse::NAME, aggregate_id: id, expected: Version::ZERO, previous: None, events, context };
    store.append(append).await?;

    println!("decoded:");
    let purse = Repository::<Purse, _>::new(store).load(id).await?;
    println!("{} cents at version {}: each stored event counts one version", purse.state.cents, purse.version);
    Ok((purse.state.cents, purse.version))
}

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    run().await.map(drop)
}
