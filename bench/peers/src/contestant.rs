//! The interface of a contestant: one framework in the best configuration that its documentation names.
//!
//! Frameworks differ in terms and scope. Each operation is implemented with the framework's own means. A contestant without an
//! operation reports so, and nothing is built for it here.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use uuid::Uuid;

/// One framework with its own database and a pool of [`POOL`](crate::database::POOL) connections.
#[async_trait]
pub trait Contestant: Send + Sync {
    /// The name in the report.
    fn name(&self) -> &'static str;

    /// Whether this is a configuration of Epoch, which is not compared as a peer.
    fn ours(&self) -> bool {
        false
    }

    /// Executes a command with one event on a new aggregate.
    async fn create(&self, id: Uuid) -> Result<()>;

    /// Loads an aggregate of about `depth` events and appends `events`. Retries after a conflict.
    async fn append(&self, id: Uuid, events: usize, depth: usize) -> Result<()>;

    /// Makes the next [`replay`](Self::replay) of the aggregate read all its events.
    async fn forget_snapshot(&self, _: Uuid) -> Result<()> {
        Ok(())
    }

    /// Folds all events of an aggregate and returns their number.
    async fn replay(&self, id: Uuid) -> Result<u64>;

    /// Loads an aggregate from a snapshot in the database and returns the number of events; `None` without snapshots.
    async fn load_snapshot(&self, _: Uuid) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Statements that copy the stored data of aggregate `$2` to each of the ids `$1`, both as text.
    fn copies(&self) -> &'static [&'static str];

    /// A short description of its delivery to read models; `None` without read models.
    fn follower(&self) -> Option<&'static str> {
        None
    }

    /// Applies all events to the read model, from the first one. May continue with new events.
    async fn catch_up(&self, _subscription: &str) -> Result<()> {
        anyhow::bail!("{} has no read models", self.name())
    }

    /// Starts the delivery of new events to the read model, from all sources or only from the fastest one in this process.
    async fn go_live(&self, _subscription: &str, _sources: Sources) -> Result<Box<dyn Live>> {
        anyhow::bail!("{} has no read models", self.name())
    }

    /// A query for the id (as text) and version of every event in the store.
    fn log(&self) -> &'static str {
        ""
    }
}

/// Executes commands while the read model follows. The follower stops when this is dropped.
#[async_trait]
pub trait Live: Send + Sync {
    /// Appends `events` and returns whether they were committed. Retries after a conflict.
    async fn command(&self, id: Uuid, events: usize, fate: Fate) -> Result<bool>;

    /// Whether a command can be rolled back after its events are written, by the caller or by a handler in the transaction.
    fn rolls_back(&self) -> bool;
}

/// The delivery sources of the read model, if there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    Fastest,
    All,
}

/// The outcome of a command's transaction, if the caller can choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Committed at once.
    Commit,
    /// Committed after a pause.
    CommitAfter(Duration),
    /// Rolled back after a pause.
    RollBackAfter(Duration),
}

/// Returns a text of 230 bytes.
pub fn text() -> String {
    "x".repeat(230)
}

/// Returns a text that handlers in the transaction reject.
pub fn refused_text() -> String {
    "r".repeat(230)
}
