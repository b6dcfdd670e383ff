//! Snapshots: states kept beside the log, so that a long stream needn't be folded from the beginning.
//!
//! The problem: a load takes as long as the stream is.
//!
//! The invariants:
//! - a snapshot is never an authority: it is written after its events are committed, may be late, lost, thrown away or
//!   unreadable, and the log has to agree with its version before it is used;
//! - commands never wait for snapshots: those wait in a bounded queue, a task writes them, and when the queue is full they are
//!   shed and counted.
//!
//! Metrics: `epoch_snapshots_total` (`aggregate`, `result`: `queued`, `shed`, `written`, `discarded`, `failed`) and
//! `epoch_snapshot_reads_total` (`aggregate`, `result`: `used`, `none`, `unreadable`, `unfounded`, `failed`).

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    cache::Loaded,
    event::SchemaId,
    fold::Recorded,
    state::{Change, decode_state, encode_state},
    store::StoreError,
    version::Version,
};

/// When to write snapshots of a kind of aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotPolicy {
    /// Not at all, and those that are there aren't read.
    #[default]
    Never,
    /// After each commit.
    EveryCommit,
    /// Whenever the version passes a multiple of this many events; `0` is the same as `1`.
    Every(u64),
}

impl SnapshotPolicy {
    fn events(self) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::EveryCommit => Some(1),
            Self::Every(events) => Some(events.max(1)),
        }
    }

    /// Whether a commit from version `before` to `after` calls for one.
    #[must_use]
    pub fn is_due(self, before: Version, after: Version) -> bool {
        self.events().is_some_and(|events| before.get() / events < after.get() / events)
    }
}

/// A state at a version, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The aggregate's name.
    pub aggregate: &'static str,
    /// Which aggregate of that name.
    pub id: Uuid,
    /// How many events it stands for.
    pub version: Version,
    /// The shape of the state: [`Aggregate::STATE_SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The state.
    pub state: Bytes,
}

/// The most bytes of a snapshot; a state that is longer isn't kept.
pub const MAX_SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;

/// The log from a snapshot's own last event on, as far as it was read together with the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Since {
    /// Events in the order of versions.
    pub events: Vec<SinceEvent>,
    /// Whether the log ended behind them.
    pub all: bool,
}

/// What a fold needs of an event.
#[derive(Debug, Clone)]
pub struct SinceEvent {
    /// Its place among the aggregate's events.
    pub version: Version,
    /// The event's name.
    pub event_name: String,
    /// The schema the payload was written with.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: Bytes,
}

impl SinceEvent {
    pub(crate) fn recorded(&self) -> Recorded<'_> {
        let Self { version, event_name, schema, payload } = self;
        Recorded { version: *version, event_name, schema: *schema, payload }
    }
}

/// Keeps the newest snapshot of each aggregate.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// The snapshot of an aggregate.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be read.
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError>;

    /// The same with what the log has since, where the store can read both at once: saves a round trip. Whoever keeps snapshots
    /// apart from the log gives the snapshot alone.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn newest_and_since(
        &self,
        aggregate: &'static str,
        id: Uuid,
    ) -> Result<Option<(Snapshot, Since)>, StoreError> {
        Ok(self.newest(aggregate, id).await?.map(|snapshot| (snapshot, Since::default())))
    }

    /// Keeps snapshots, no two of one aggregate, in ascending order of names and ids. One that is older than the kept one is
    /// dropped; one of the same version takes its place.
    ///
    /// # Errors
    /// [`StoreError`] when they can't be written.
    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError>;

    /// Throws the snapshot of an aggregate away.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be.
    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError>;
}

/// How many snapshots may wait to be written before more are shed.
const QUEUE: usize = 1_024;
/// How many are written at once.
const BATCH: usize = 16;

type Encode = Box<dyn FnOnce() -> Result<Vec<u8>, StoreError> + Send>;

enum Wish {
    Save { version: Version, schema: u32, encode: Encode },
    Discard,
}

type Key = (&'static str, Uuid);

/// Reads snapshots and queues new ones; one for all repositories of a service, cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    store: Arc<dyn SnapshotStore>,
    wishes: mpsc::Sender<(Key, Wish)>,
}

/// The task that writes snapshots; ends when the last [`Snapshots`] is gone and what was waiting is written.
pub struct SnapshotWriter {
    store: Arc<dyn SnapshotStore>,
    wishes: mpsc::Receiver<(Key, Wish)>,
}

fn count(aggregate: &'static str, result: &'static str) {
    metrics::counter!("epoch_snapshots_total", "aggregate" => aggregate, "result" => result).increment(1);
}

fn count_read(aggregate: &'static str, result: &'static str) {
    metrics::counter!("epoch_snapshot_reads_total", "aggregate" => aggregate, "result" => result).increment(1);
}

impl Snapshots {
    /// Snapshots in `store`, and the task that writes them. Run it for as long as they are used.
    #[must_use]
    pub fn new(store: Arc<dyn SnapshotStore>) -> (Self, SnapshotWriter) {
        let (wishes, receiver) = mpsc::channel(QUEUE);
        (Self { store: Arc::clone(&store), wishes }, SnapshotWriter { store, wishes: receiver })
    }

    /// The state of an aggregate's snapshot. Whatever goes wrong only means that the stream is folded from the beginning.
    pub(crate) async fn read<A: Aggregate>(&self, id: Uuid) -> Option<(Loaded<A>, Since)> {
        let (snapshot, since) = match self.store.newest_and_since(A::NAME, id).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                count_read(A::NAME, "none");
                return None;
            }
            Err(error) => {
                tracing::warn!(aggregate = A::NAME, %id, %error, "snapshot not read");
                count_read(A::NAME, "failed");
                return None;
            }
        };
        let Some(state) = decode_state(snapshot.schema, &snapshot.state) else {
            count_read(A::NAME, "unreadable");
            return None;
        };
        Some((Loaded { state: Arc::new(state), version: snapshot.version }, since))
    }

    /// Counts what became of a snapshot that was read: whether the log agreed with it.
    pub(crate) fn used<A: Aggregate>(&self, agreed: bool) {
        count_read(A::NAME, if agreed { "used" } else { "unfounded" });
    }

    /// Takes notice of a commit.
    pub(crate) fn committed<A: Aggregate>(&self, policy: SnapshotPolicy, change: &Change<A>) {
        if change.deleted {
            self.discard::<A>(change.id);
        } else if policy.is_due(change.before, change.after.version) {
            self.save(change.id, change.after.clone());
        }
    }

    /// Takes notice of a fold: a snapshot that isn't there, though it should be, is made.
    pub(crate) fn folded<A: Aggregate>(&self, policy: SnapshotPolicy, id: Uuid, loaded: &Loaded<A>, read: u64) {
        if policy.events().is_some_and(|events| events <= read) {
            self.save(id, loaded.clone());
        }
    }

    /// Queues a snapshot. It is encoded by the task, not here.
    pub(crate) fn save<A: Aggregate>(&self, id: Uuid, loaded: Loaded<A>) {
        let Loaded { state, version } = loaded;
        let encode: Encode = Box::new(move || encode_state(&*state));
        self.wish::<A>(id, Wish::Save { version, schema: A::STATE_SCHEMA, encode });
    }

    /// Queues that an aggregate's snapshot goes away.
    pub(crate) fn discard<A: Aggregate>(&self, id: Uuid) {
        self.wish::<A>(id, Wish::Discard);
    }

    fn wish<A: Aggregate>(&self, id: Uuid, wish: Wish) {
        let queued = self.wishes.try_send(((A::NAME, id), wish)).is_ok();
        count(A::NAME, if queued { "queued" } else { "shed" });
    }
}

impl SnapshotWriter {
    /// Writes snapshots until the last handle is gone.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        while self.wishes.recv_many(&mut waiting, BATCH).await > 0 {
            // Of several wishes for one aggregate the last counts.
            let wishes: BTreeMap<Key, Wish> = waiting.drain(..).collect();
            self.fulfil(wishes).await;
        }
    }

    async fn fulfil(&self, wishes: BTreeMap<Key, Wish>) {
        let mut snapshots = Vec::with_capacity(wishes.len());
        for ((aggregate, id), wish) in wishes {
            match wish {
                Wish::Discard => match self.store.discard(aggregate, id).await {
                    Ok(()) => count(aggregate, "discarded"),
                    Err(error) => failed(aggregate, id, &error),
                },
                Wish::Save { version, schema, encode } => match encoded(encode) {
                    Ok(state) => snapshots.push(Snapshot { aggregate, id, version, schema, state }),
                    Err(error) => failed(aggregate, id, &error),
                },
            }
        }
        if snapshots.is_empty() {
            return;
        }
        let saved = self.store.save(&snapshots).await;
        for Snapshot { aggregate, id, .. } in snapshots {
            match &saved {
                Ok(()) => count(aggregate, "written"),
                Err(error) => failed(aggregate, id, error),
            }
        }
    }
}

fn encoded(encode: Encode) -> Result<Bytes, StoreError> {
    let state = encode()?;
    if state.len() > MAX_SNAPSHOT_BYTES {
        let detail = format!("a snapshot of {} bytes, at most {MAX_SNAPSHOT_BYTES} are kept", state.len());
        return Err(StoreError::Refused { detail });
    }
    Ok(Bytes::from(state))
}

fn failed(aggregate: &'static str, id: Uuid, error: &StoreError) {
    count(aggregate, "failed");
    tracing::warn!(aggregate, %id, %error, "snapshot not kept");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a stream grows, a load never has to fold more than a policy's number of events plus one commit.
        #[test]
        fn snapshots_are_never_further_apart_than_the_policy_and_a_commit(
            every in 1..20_u64,
            commits in prop::collection::vec(0..7_u64, 1..60),
        ) {
            let (mut version, mut kept) = (0, 0);
            for events in commits {
                let after = version + events;
                if SnapshotPolicy::Every(every).is_due(Version::new(version), Version::new(after)) {
                    kept = after;
                }
                prop_assert!(after - kept < every, "{kept} kept at {after}");
                let each = SnapshotPolicy::EveryCommit.is_due(Version::new(version), Version::new(after));
                prop_assert_eq!(each, events > 0);
                prop_assert!(!SnapshotPolicy::Never.is_due(Version::new(version), Version::new(after)));
                version = after;
            }
        }
    }
}
