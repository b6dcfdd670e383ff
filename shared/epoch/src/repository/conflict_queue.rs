//! The queue of commands that lost a write conflict.
//!
//! Commands that met a conflict on the same aggregate retry one after the other within a process, so that under any
//! load each meets only a few conflicts. Commands without a conflict do not wait.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// How many locks the aggregates share. Aggregates that share a lock wait for each other, which only costs time.
const SHARDS: usize = 64;

/// The exclusive right to retry; passes to the next command when dropped.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// The conflict queues of one type of aggregate in this process.
#[derive(Clone)]
pub(super) struct ConflictQueue {
    shards: Arc<[Mutex<()>; SHARDS]>,
}

impl ConflictQueue {
    pub(super) fn new() -> Self {
        Self { shards: Arc::new(std::array::from_fn(|_| Mutex::new(()))) }
    }

    /// Waits until earlier commands in the queue have dropped their turn.
    pub(super) async fn wait_turn(&self, id: Uuid) -> Turn<'_> {
        let [.., last] = id.into_bytes();
        self.shards[usize::from(last) % SHARDS].lock().await
    }
}
