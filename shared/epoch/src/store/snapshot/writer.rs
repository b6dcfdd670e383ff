//! Reading snapshots, and writing them in a background task.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    policy::SnapshotPolicy,
    snapshot_store::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotStore, StreamTail},
};
use crate::{
    aggregate::{Aggregate, VersionedState},
    event::version::Version,
    store::{
        StoreError,
        state::{Change, decode_state, encode_state},
    },
};

/// How many requests may wait before further ones are dropped.
const QUEUE_CAPACITY: usize = 1_024;
/// How many requests one write takes.
const BATCH: usize = 16;

type Encode = Box<dyn FnOnce() -> Result<Vec<u8>, StoreError> + Send>;

enum SnapshotRequest {
    Save { version: Version, schema: u32, encode: Encode },
    Discard,
}

type AggregateKey = (&'static str, Uuid);

/// Reads snapshots and queues new ones. Create one per service and clone it for each repository.
#[derive(Clone)]
pub struct Snapshots {
    store: Arc<dyn SnapshotStore>,
    requests: mpsc::Sender<(AggregateKey, SnapshotRequest)>,
}

/// The task that writes snapshots. It ends when the last [`Snapshots`] is dropped and the queue is empty.
pub struct SnapshotWriter {
    store: Arc<dyn SnapshotStore>,
    requests: mpsc::Receiver<(AggregateKey, SnapshotRequest)>,
}

fn count(aggregate: &'static str, result: &'static str) {
    metrics::counter!("epoch_snapshots_total", "aggregate" => aggregate, "result" => result).increment(1);
}

fn count_read(aggregate: &'static str, result: &'static str) {
    metrics::counter!("epoch_snapshot_reads_total", "aggregate" => aggregate, "result" => result).increment(1);
}

impl Snapshots {
    /// Creates a handle to `store` and its writer. Run the writer for as long as the handle is used.
    #[must_use]
    pub fn new(store: Arc<dyn SnapshotStore>) -> (Self, SnapshotWriter) {
        let (requests, receiver) = mpsc::channel(QUEUE_CAPACITY);
        (Self { store: Arc::clone(&store), requests }, SnapshotWriter { store, requests: receiver })
    }

    /// Reads an aggregate's snapshot. After any failure it returns `None`, and the stream is folded from the beginning.
    pub(crate) async fn read<A: Aggregate>(&self, id: Uuid) -> Option<(VersionedState<A>, StreamTail)> {
        let (snapshot, tail) = match self.store.newest_with_tail(A::NAME, id).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                count_read(A::NAME, "none");
                return None;
            }
            Err(error) => {
                tracing::warn!(aggregate = A::NAME, %id, %error, "reading snapshot failed");
                count_read(A::NAME, "failed");
                return None;
            }
        };
        let Some(state) = decode_state(snapshot.schema, &snapshot.state) else {
            count_read(A::NAME, "unreadable");
            return None;
        };
        Some((VersionedState { state: Arc::new(state), version: snapshot.version }, tail))
    }

    /// Counts whether the log contained the version of a snapshot that was read.
    pub(crate) fn count_use<A: Aggregate>(&self, verified: bool) {
        count_read(A::NAME, if verified { "used" } else { "unfounded" });
    }

    /// Queues the snapshot that a commit requires, or discards the snapshot of a deleted aggregate.
    pub(crate) fn after_commit<A: Aggregate>(&self, policy: SnapshotPolicy, change: &Change<A>) {
        if change.deleted {
            self.discard::<A>(change.id);
        } else if policy.is_due(change.before, change.after.version) {
            self.save(change.id, change.after.clone());
        }
    }

    /// Queues a missing snapshot after a fold of at least the policy's number of events.
    pub(crate) fn after_fold<A: Aggregate>(
        &self,
        policy: SnapshotPolicy,
        id: Uuid,
        state: &VersionedState<A>,
        events_read: u64,
    ) {
        if policy.interval().is_some_and(|events| events <= events_read) {
            self.save(id, state.clone());
        }
    }

    /// Queues a snapshot. The writer encodes it, not the caller.
    pub(crate) fn save<A: Aggregate>(&self, id: Uuid, state: VersionedState<A>) {
        let VersionedState { state, version } = state;
        let encode: Encode = Box::new(move || encode_state(&*state));
        self.request::<A>(id, SnapshotRequest::Save { version, schema: A::STATE_SCHEMA, encode });
    }

    /// Queues the deletion of a snapshot.
    pub(crate) fn discard<A: Aggregate>(&self, id: Uuid) {
        self.request::<A>(id, SnapshotRequest::Discard);
    }

    fn request<A: Aggregate>(&self, id: Uuid, request: SnapshotRequest) {
        let queued = self.requests.try_send(((A::NAME, id), request)).is_ok();
        count(A::NAME, if queued { "queued" } else { "shed" });
    }
}

impl SnapshotWriter {
    /// Writes snapshots until the last handle is dropped.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        while self.requests.recv_many(&mut waiting, BATCH).await > 0 {
            // The last of several requests for one aggregate wins.
            let requests: BTreeMap<AggregateKey, SnapshotRequest> = waiting.drain(..).collect();
            self.process(requests).await;
        }
    }

    async fn process(&self, requests: BTreeMap<AggregateKey, SnapshotRequest>) {
        let mut snapshots = Vec::with_capacity(requests.len());
        for ((aggregate, id), request) in requests {
            match request {
                SnapshotRequest::Discard => match self.store.discard(aggregate, id).await {
                    Ok(()) => count(aggregate, "discarded"),
                    Err(error) => report_failure(aggregate, id, &error),
                },
                SnapshotRequest::Save { version, schema, encode } => match run_encoder(encode) {
                    Ok(state) => snapshots.push(Snapshot { aggregate, id, version, schema, state }),
                    Err(error) => report_failure(aggregate, id, &error),
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
                Err(error) => report_failure(aggregate, id, error),
            }
        }
    }
}

fn run_encoder(encode: Encode) -> Result<Bytes, StoreError> {
    let state = encode()?;
    if state.len() > MAX_SNAPSHOT_BYTES {
        let detail = format!("snapshot has {} bytes, the limit is {MAX_SNAPSHOT_BYTES}", state.len());
        return Err(StoreError::Refused { detail });
    }
    Ok(Bytes::from(state))
}

fn report_failure(aggregate: &'static str, id: Uuid, error: &StoreError) {
    count(aggregate, "failed");
    tracing::warn!(aggregate, %id, %error, "writing snapshot failed");
}
