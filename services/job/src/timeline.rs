//! When a job came where it is.
//!
//! The problem: an aggregate sees no clock, but the ends of a run must be in order, and the read model may be late.
//! The invariant: the instants are those of the committed events.

use epoch::{
    Aggregate, Timestamp, Version,
    store::{StoreError, Streamer},
};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use uuid::Uuid;

use crate::domain::job::Job;

/// When a job was queued and started, if it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moments {
    pub(crate) queued_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
}

impl Moments {
    /// Those of a job.
    pub(crate) async fn of(store: &PgStore, job: Uuid) -> Result<Self, StoreError> {
        let mut moments = Self::default();
        let mut events = store.stream(Job::NAME, job, Version::ZERO);
        while let Some(event) = events.try_next().await? {
            match &*event.event_name {
                "JobQueued" => moments.queued_at = Some(event.occurred_at),
                "JobStarted" => moments.started_at = Some(event.occurred_at),
                _ => {}
            }
        }
        Ok(moments)
    }

    /// What nothing that happens on a machine can be before.
    pub(crate) fn latest(self) -> Option<Timestamp> {
        self.started_at.max(self.queued_at)
    }
}
