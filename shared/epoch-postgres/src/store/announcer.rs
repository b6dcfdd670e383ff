//! Announcing committed events to the tasks of this process: fast path and relay.

use std::sync::Arc;

use epoch::{
    Envelope,
    fast_path::{FastPath, Receipt},
    store::AppendOutcome,
};
use tokio::sync::watch;

use crate::store::append::AppendResult;

/// Passes committed events to the subscriptions of this process and wakes its relay.
#[derive(Clone)]
pub(crate) struct CommitAnnouncer {
    pub(crate) local: FastPath,
    head: watch::Sender<u64>,
}

impl CommitAnnouncer {
    pub(crate) fn new(local: FastPath) -> Self {
        Self { local, head: watch::channel(0).0 }
    }

    /// Returns a receiver that changes whenever this process has committed events.
    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(crate) fn announce(&self, events: &[Arc<Envelope>]) -> Receipt {
        let receipt = self.local.dispatch(events);
        if let Some(last) = events.last() {
            self.head.send_replace(last.position.get());
        }
        receipt
    }

    /// Converts the outcome of a committed append, announcing its events.
    pub(crate) fn appended(&self, outcome: AppendResult) -> AppendOutcome {
        match outcome {
            AppendResult::Committed(events) => {
                let receipt = self.announce(&events);
                AppendOutcome::Committed { events, receipt }
            }
            AppendResult::Conflict(actual) => AppendOutcome::Conflict { actual },
            AppendResult::Repeated(record) => AppendOutcome::Repeated(record),
            AppendResult::Reused => AppendOutcome::Reused,
        }
    }
}
