//! Decoding of renamed, reshaped, split and dropped events, in commands and projections, and of unknown events.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use epoch::{
    Aggregate, Batch, CommandContext, DomainEvent, Envelope, ExecuteError, Repository, Timestamp, Version,
    avro::{self, AvroEvent},
    event::{CodecError, SchemaId},
    gate::DeliverySource,
    handler::{EventHandler, Subscription},
    memory::{MemoryStore, MemorySubscription},
    repository::PointInTime,
    store::{Append, Appender, NewEvent, StoreError, Streamer},
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The current shape: one amount and its currency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MoneyIn {
    cents: i64,
    currency: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MoneyOut {
    cents: i64,
}

/// The second shape: separate euros and cents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "MoneyIn")]
struct MoneyInV2 {
    euros: i64,
    cents: i64,
}

/// The first shape: the amount as text, under another name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Paid")]
struct PaidV1 {
    amount: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Corrected {
    wrong: i64,
    right: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LookedAt {}

const IN: &str = r#"{"type":"record","name":"MoneyIn","fields":[
    {"name":"cents","type":"long"},{"name":"currency","type":"string"}]}"#;
const OUT: &str = r#"{"type":"record","name":"MoneyOut","fields":[{"name":"cents","type":"long"}]}"#;
/// `MoneyOut` under its former name.
const TAKEN: &str = r#"{"type":"record","name":"MoneyTaken","fields":[{"name":"cents","type":"long"}]}"#;
const IN_2: &str = r#"{"type":"record","name":"MoneyIn","fields":[
    {"name":"euros","type":"long"},{"name":"cents","type":"long"}]}"#;
const PAID: &str = r#"{"type":"record","name":"Paid","fields":[{"name":"amount","type":"string"}]}"#;
const CORRECTED: &str = r#"{"type":"record","name":"Corrected","fields":[
    {"name":"wrong","type":"long"},{"name":"right","type":"long"}]}"#;
const LOOKED_AT: &str = r#"{"type":"record","name":"LookedAt","fields":[]}"#;

impl From<PaidV1> for MoneyInV2 {
    fn from(old: PaidV1) -> Self {
        let (euros, cents) = old.amount.split_once('.').unwrap_or((&old.amount, "0"));
        Self { euros: euros.parse().unwrap_or_default(), cents: cents.parse().unwrap_or_default() }
    }
}

impl From<MoneyInV2> for MoneyIn {
    fn from(old: MoneyInV2) -> Self {
        Self { cents: old.euros * 100 + old.cents, currency: "EUR".to_owned() }
    }
}

epoch::events! {
    /// Events of a purse.
    enum PurseEvent {
        MoneyIn = [IN],
        MoneyOut | "MoneyTaken" = [OUT, TAKEN],
    }
    upcast {
        "MoneyIn" as MoneyInV2 = [IN_2] => MoneyIn::from,
        "Paid" as PaidV1 = [PAID] => |old| MoneyIn::from(MoneyInV2::from(old)),
    }
    split {
        "Corrected" as Corrected = [CORRECTED] =>
            |old| [MoneyOut { cents: old.wrong }.into(), money_in(old.right).into()],
        "LookedAt" as LookedAt = [LOOKED_AT] => |_| None,
    }
}

fn money_in(cents: i64) -> MoneyIn {
    MoneyIn { cents, currency: "EUR".to_owned() }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Purse {
    cents: i64,
    applied: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Purse {
    const NAME: &'static str = "purse";
    type Command = i64;
    type Event = PurseEvent;
    type Error = Never;

    fn decide(&self, cents: &i64) -> Result<Vec<PurseEvent>, Never> {
        Ok(vec![money_in(*cents).into()])
    }

    fn evolve(&mut self, event: &PurseEvent) {
        self.applied += 1;
        self.cents += match event {
            PurseEvent::MoneyIn(event) => event.cents,
            PurseEvent::MoneyOut(event) => -event.cents,
        };
    }
}

fn stored<E: AvroEvent>(name: &'static str, event: &E) -> NewEvent {
    NewEvent { event_id: Uuid::now_v7(), name, encoded: avro::encode(event).unwrap() }
}

/// Returns a store with one purse and these events.
async fn store_with(events: Vec<NewEvent>) -> (MemoryStore, Uuid) {
    let (store, id) = (MemoryStore::new(), Uuid::now_v7());
    let append = Append {
        aggregate: Purse::NAME,
        aggregate_id: id,
        expected: Version::ZERO,
        previous: None,
        events,
        context: CommandContext::new(),
    };
    store.append(append).await.unwrap();
    (store, id)
}

fn events_of_all_shapes() -> Vec<NewEvent> {
    vec![
        stored("Paid", &PaidV1 { amount: "12.34".to_owned() }),
        stored("LookedAt", &LookedAt {}),
        stored("MoneyIn", &MoneyInV2 { euros: 5, cents: 6 }),
        stored("Corrected", &Corrected { wrong: 506, right: 606 }),
        stored("MoneyTaken", &MoneyOut { cents: 40 }),
        stored("MoneyIn", &money_in(100)),
        stored("LookedAt", &LookedAt {}),
    ]
}

fn decoded(name: &str, event: &NewEvent) -> Vec<PurseEvent> {
    PurseEvent::decode_all(name, event.encoded.schema, &event.encoded.payload).unwrap().into_vec()
}

#[test]
fn stored_events_of_all_shapes_decode_to_current_events() {
    let current: Vec<_> = events_of_all_shapes().iter().map(|event| decoded(event.name, event)).collect();
    assert_eq!(
        current,
        [
            vec![money_in(1_234).into()],
            vec![],
            vec![money_in(506).into()],
            vec![MoneyOut { cents: 506 }.into(), money_in(606).into()],
            vec![MoneyOut { cents: 40 }.into()],
            vec![money_in(100).into()],
            vec![],
        ]
    );
}

#[test]
fn former_name_decodes_with_former_schema() {
    let codec = avro::AvroCodec::new("MoneyTaken", &[TAKEN]).unwrap();
    let encoded = codec.encode(&MoneyOut { cents: 3 }).unwrap();
    assert_ne!(encoded.schema, avro::encode(&MoneyOut { cents: 3 }).unwrap().schema);
    let event = NewEvent { event_id: Uuid::now_v7(), name: "MoneyTaken", encoded };
    assert_eq!(decoded("MoneyTaken", &event), [MoneyOut { cents: 3 }.into()]);
}

#[test]
fn single_decoded_event_needs_no_allocation() {
    let event = stored("MoneyIn", &MoneyInV2 { euros: 5, cents: 6 });
    let current = PurseEvent::decode_all("MoneyIn", event.encoded.schema, &event.encoded.payload).unwrap();
    assert!(!current.spilled());
}

#[test]
fn schema_of_another_event_is_rejected() {
    let schema_of = |event: &NewEvent| event.encoded.schema;
    let paid = stored("Paid", &PaidV1 { amount: "1.00".to_owned() });
    // The schema is listed for another event.
    let wrong = PurseEvent::decode_all("MoneyIn", schema_of(&paid), &paid.encoded.payload);
    assert_eq!(wrong, Err(CodecError::UnknownSchema { name: "MoneyIn".to_owned(), schema: schema_of(&paid) }));
    let unlisted = SchemaId::new(7);
    for name in ["MoneyIn", "MoneyTaken", "Paid", "Corrected"] {
        let result = PurseEvent::decode_all(name, unlisted, &[]);
        assert_eq!(result, Err(CodecError::UnknownSchema { name: name.to_owned(), schema: unlisted }));
    }
    let unknown = PurseEvent::decode_all("MoneyFound", unlisted, &[]);
    assert_eq!(unknown, Err(CodecError::UnknownEvent { name: "MoneyFound".to_owned() }));
}

#[test]
fn truncated_payload_of_a_former_event_is_an_error() {
    let event = stored("Corrected", &Corrected { wrong: 1, right: 2 });
    let cut = &event.encoded.payload[..1];
    assert!(matches!(
        PurseEvent::decode_all("Corrected", event.encoded.schema, cut),
        Err(CodecError::Decode { name, .. }) if name == "Corrected"
    ));
}

#[test]
fn schemas_include_former_events() {
    let schemas: Vec<_> = PurseEvent::SCHEMAS.concat();
    assert_eq!(schemas, [IN, OUT, TAKEN, IN_2, PAID, CORRECTED, LOOKED_AT]);
    const { assert!(PurseEvent::SPLITS) };
    const { assert!(!crate::counter::CounterEvent::SPLITS) };
}

#[tokio::test]
async fn stored_event_counts_one_version_however_it_decodes() {
    let (store, id) = store_with(events_of_all_shapes()).await;
    for cache in [0, 100] {
        let purses = Repository::<Purse, _>::new(store.clone()).with_cache(cache);
        let loaded = purses.load(id).await.unwrap();
        assert_eq!(loaded.version, Version::new(7));
        assert_eq!(*loaded.state, Purse { cents: 1_234 + 506 - 506 + 606 - 40 + 100, applied: 6 });
    }
    let purses = Repository::<Purse, _>::new(store.clone());
    for (version, applied, cents) in [(0, 0, 0), (2, 1, 1_234), (3, 2, 1_740), (4, 4, 1_840), (7, 6, 1_900)] {
        let then = purses.state_at(id, PointInTime::Version(Version::new(version))).await.unwrap();
        assert_eq!((then.version, &*then.state), (Version::new(version), &Purse { cents, applied }));
    }
    let now = purses.state_at(id, PointInTime::Recorded(Timestamp::now())).await.unwrap();
    assert_eq!((now.version, now.state.cents, now.state.applied), (Version::new(7), 1_900, 6));
    let purses = Repository::<Purse, _>::new(store);
    let executed = purses.execute(id, &1, &CommandContext::new()).await.unwrap();
    assert_eq!((executed.version, executed.appended), (Version::new(8), 1));
    let loaded = purses.load(id).await.unwrap();
    assert_eq!((loaded.version, loaded.state.cents), (Version::new(8), 1_901));
}

#[tokio::test]
async fn unknown_schema_fails_the_command() {
    let mut events = events_of_all_shapes();
    events[1].encoded.schema = SchemaId::new(7);
    let (store, id) = store_with(events).await;
    let purses = Repository::<Purse, _>::new(store.clone());
    let error = purses.execute(id, &1, &CommandContext::new()).await.unwrap_err();
    let ExecuteError::Store(StoreError::Codec(CodecError::UnknownSchema { name, schema })) = error else {
        panic!("{error:?}")
    };
    assert_eq!((name.as_str(), schema), ("LookedAt", SchemaId::new(7)));
    let stored: Vec<_> = store.stream(Purse::NAME, id, Version::ZERO).try_collect().await.unwrap();
    assert_eq!(stored.len(), 7, "nothing was appended");
}

#[derive(Default)]
struct EventRecorder {
    recorded: Mutex<Vec<(Version, PurseEvent)>>,
}

#[async_trait]
impl EventHandler<()> for EventRecorder {
    type Error = CodecError;

    fn name(&self) -> &'static str {
        "recorder"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[Purse::NAME]
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), CodecError> {
        for envelope in events {
            for event in envelope.decode_all()? {
                self.recorded.lock().unwrap().push((envelope.version, event));
            }
        }
        Ok(())
    }
}

async fn envelopes(store: &MemoryStore, id: Uuid) -> Vec<Arc<Envelope>> {
    store.stream(Purse::NAME, id, Version::ZERO).map_ok(Arc::new).try_collect().await.unwrap()
}

#[tokio::test]
async fn projection_receives_decoded_current_events() {
    let (store, id) = store_with(events_of_all_shapes()).await;
    let recorder = MemorySubscription::new(EventRecorder::default());
    let delivered = recorder.deliver(&envelopes(&store, id).await, DeliverySource::Replay).await.unwrap();
    assert_eq!(delivered.applied, 7, "dropped events advance the cursor too");
    let recorded: Vec<_> =
        recorder.handler().recorded.lock().unwrap().iter().map(|(version, _)| version.get()).collect();
    assert_eq!(recorded, [1, 3, 4, 4, 5, 6]);
}

#[tokio::test]
async fn unknown_schema_parks_the_aggregate_of_a_projection() {
    let mut events = events_of_all_shapes();
    events[2].encoded.schema = SchemaId::new(7);
    let (store, id) = store_with(events).await;
    let recorder = MemorySubscription::new(EventRecorder::default());
    for envelope in envelopes(&store, id).await {
        recorder.deliver(&[envelope], DeliverySource::Replay).await.unwrap();
    }
    let recorded: Vec<_> =
        recorder.handler().recorded.lock().unwrap().iter().map(|(version, _)| version.get()).collect();
    assert_eq!(recorded, [1], "later events are not applied");
}
