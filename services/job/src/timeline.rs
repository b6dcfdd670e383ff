//! Instants of a job's earlier events.
//!
//! An aggregate has no clock, but the start and end of a run must be in order. The instants come from the committed
//! events, because the read model may lag.

use epoch::{
    Aggregate, Timestamp, Version,
    store::{StoreError, Streamer},
};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use uuid::Uuid;

use crate::domain::job::Job;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct JobTimeline {
    pub(crate) queued_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
}

impl JobTimeline {
    /// Reads the job's events from the store.
    pub(crate) async fn load(store: &PgStore, job: Uuid) -> Result<Self, StoreError> {
        let mut timeline = Self::default();
        let mut events = store.stream(Job::NAME, job, Version::ZERO);
        while let Some(event) = events.try_next().await? {
            match &*event.event_name {
                "JobQueued" => timeline.queued_at = Some(event.occurred_at),
                "JobStarted" => timeline.started_at = Some(event.occurred_at),
                _ => {}
            }
        }
        Ok(timeline)
    }

    /// Returns the later of the two instants: the earliest possible end of the run.
    pub(crate) fn latest(self) -> Option<Timestamp> {
        self.started_at.max(self.queued_at)
    }
}
