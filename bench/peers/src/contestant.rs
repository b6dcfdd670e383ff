//! What every contestant can be asked to do.
//!
//! The problem: frameworks differ in words and in reach, and a comparison is only worth something if each is asked for the
//! same thing in its own way. A contestant is one framework in the best configuration its documentation names; what it has no
//! answer for, it says it doesn't have, and nothing is built for it here.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use uuid::Uuid;

/// One framework, connected to a database of its own by a pool of [`POOL`](crate::database::POOL) connections.
#[async_trait]
pub trait Contestant: Send + Sync {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// Whether it is ours: then it is no peer to be measured against.
    fn ours(&self) -> bool {
        false
    }

    /// A command of one event on an aggregate that is not there yet.
    async fn create(&self, id: Uuid) -> Result<()>;

    /// Loads an aggregate of about `depth` events and appends `events` to it; when others were faster, loads and tries again.
    async fn append(&self, id: Uuid, events: usize, depth: usize) -> Result<()>;

    /// Makes the next [`replay`](Self::replay) of the aggregate read all its events.
    async fn forget_snapshot(&self, _: Uuid) -> Result<()> {
        Ok(())
    }

    /// How many events the state is made of, from all the events.
    async fn replay(&self, id: Uuid) -> Result<u64>;

    /// The same from a snapshot that is stored in the database; `None` if there are none.
    async fn load_snapshot(&self, _: Uuid) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Statements that copy all that is stored of the aggregate `$2` to each of the ids `$1`, as text.
    fn copies(&self) -> &'static [&'static str];

    /// How it brings events to read models, in a few words; `None` if it doesn't.
    fn follower(&self) -> Option<&'static str> {
        None
    }

    /// Brings all events there are to the read model, from the beginning; may go on afterwards.
    async fn catch_up(&self, _subscription: &str) -> Result<()> {
        anyhow::bail!("{} has no read models", self.name())
    }

    /// Starts what brings new events to the read model; all of its ways, or only the fastest one in this process.
    async fn go_live(&self, _subscription: &str, _ways: Ways) -> Result<Box<dyn Live>> {
        anyhow::bail!("{} has no read models", self.name())
    }

    /// A query for the ids (as text) and versions of all events in the store.
    fn log(&self) -> &'static str {
        ""
    }
}

/// Commands while a follower runs; it stops when this is dropped.
#[async_trait]
pub trait Live: Send + Sync {
    /// Appends `events`; whether they were committed. A conflict is tried again.
    async fn command(&self, id: Uuid, events: usize, fate: Fate) -> Result<bool>;

    /// Whether a command can be rolled back after its events are written: by the caller's transaction, or by a handler in it.
    fn rolls_back(&self) -> bool;
}

/// By how many ways events come to the read model, where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    Fastest,
    All,
}

/// What becomes of a command's transaction, where the caller has a say in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Committed at once.
    Commit,
    /// Committed after a pause.
    CommitAfter(Duration),
    /// Rolled back after a pause.
    RollBackAfter(Duration),
}

/// 230 bytes.
pub fn text() -> String {
    "x".repeat(230)
}

/// An event that handlers in the transaction refuse.
pub fn refused_text() -> String {
    "r".repeat(230)
}
