//! The aggregate of these tests, and a store with a competing writer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use epoch::{
    Aggregate, CommandContext, Envelope, Positions, Version, VersionedState, Versions,
    memory::MemoryStore,
    state::{Change, StateStore},
    store::{Append, AppendOutcome, Appender, CommandLookup, NewEvent, StoreError, Streamer},
};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) by: i64,
}

/// Does not change the state, but counts a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Looked {}

const COUNTED: &str = r#"{"type":"record","name":"Counted","fields":[{"name":"by","type":"long"}]}"#;
const LOOKED: &str = r#"{"type":"record","name":"Looked","fields":[]}"#;

epoch::events! {
    pub(crate) enum CounterEvent { Counted = [COUNTED], Looked = [LOOKED] }
}

#[derive(Debug, Clone)]
pub(crate) enum CounterCommand {
    Count(i64),
    Look,
    /// A no-op when the count has this value.
    Reach(i64),
    /// Always a no-op.
    Rest,
    /// Rejected when the count would become negative.
    Take(i64),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("only {left} left")]
pub(crate) struct NotEnough {
    pub(crate) left: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) count: i64,
}

impl Aggregate for Counter {
    const NAME: &'static str = "counter";
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Error = NotEnough;

    fn decide(&self, command: &CounterCommand) -> Result<Vec<CounterEvent>, NotEnough> {
        match command {
            CounterCommand::Count(by) => Ok(vec![Counted { by: *by }.into()]),
            CounterCommand::Look => Ok(vec![Looked {}.into()]),
            CounterCommand::Rest => Ok(vec![]),
            CounterCommand::Reach(count) if *count == self.count => Ok(vec![]),
            CounterCommand::Reach(count) => Ok(vec![Counted { by: count - self.count }.into()]),
            CounterCommand::Take(by) if *by > self.count => Err(NotEnough { left: self.count }),
            CounterCommand::Take(by) => Ok(vec![Counted { by: -by }.into()]),
        }
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Counted(event) => self.count += event.by,
            CounterEvent::Looked(_) => {}
        }
    }
}

/// A store in which another writer increments the same aggregate before each of the next `wins` appends.
#[derive(Clone, Default)]
pub(crate) struct ContendedStore {
    pub(crate) store: MemoryStore,
    pub(crate) wins: Arc<AtomicU32>,
}

impl ContendedStore {
    /// Increments the counter as another writer.
    pub(crate) async fn count(&self, id: Uuid) {
        use futures::TryStreamExt;
        let past: Vec<_> = self.store.stream("counter", id, Version::ZERO).try_collect().await.unwrap();
        let event: CounterEvent = Counted { by: 1 }.into();
        let append = Append {
            aggregate: "counter",
            aggregate_id: id,
            expected: Version::ZERO.after(past.len()),
            previous: None,
            events: vec![NewEvent::encode(&event).unwrap()],
            context: CommandContext::new(),
        };
        self.store.append(append).await.unwrap();
    }
}

impl Streamer for ContendedStore {
    fn read(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        self.store.read(aggregate, id, bounds)
    }

    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        self.store.read_all(aggregates, bounds)
    }
}

impl ContendedStore {
    async fn append_competing(&self, id: Uuid) {
        let wins = self.wins.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |wins| wins.checked_sub(1));
        if wins.is_ok() {
            self.count(id).await;
        }
    }
}

impl Appender for ContendedStore {
    type Executor = ();

    async fn append(&self, append: Append) -> Result<AppendOutcome, StoreError> {
        self.append_competing(append.aggregate_id).await;
        self.store.append(append).await
    }

    async fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, ()>,
        change: &Change<A>,
    ) -> Result<AppendOutcome, StoreError> {
        self.append_competing(append.aggregate_id).await;
        self.store.append_with_state(append, states, change).await
    }

    async fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, ()>,
        id: Uuid,
    ) -> Result<Option<VersionedState<A>>, StoreError> {
        self.store.read_state(states, id).await
    }

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<CommandLookup>, StoreError> {
        self.store.find_command(id, fingerprint).await
    }
}
