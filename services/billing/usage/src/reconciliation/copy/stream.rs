//! A stream as its owner has it.

use std::collections::BTreeSet;

use service_host::{
    peer::PeerError,
    streams::{MalformedEvent, StreamClient},
};
use uuid::Uuid;

use crate::reconciliation::copy::rows::{Made, made};

/// Why an owner's stream can't be had.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// It doesn't answer, or refuses.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Its answer makes no sense.
    #[error(transparent)]
    Unreadable(#[from] MalformedEvent),
    /// It doesn't give what was asked for.
    #[error("{aggregate} {id} is answered with version {version} after {after}")]
    Hole {
        /// Of which stream.
        aggregate: &'static str,
        /// Of which stream.
        id: Uuid,
        /// What came.
        version: u64,
        /// After what.
        after: u64,
    },
    /// It takes too long.
    #[error("the owner took longer than {limit_ms} ms")]
    TooSlow {
        /// How long a step may take.
        limit_ms: u128,
    },
}

/// What is left of a stream's events once they are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    /// The rows that they make.
    pub(super) made: Vec<Made>,
    /// When each was recorded, from version 1 on.
    pub(super) recorded: Vec<i64>,
    /// Whose they are, and in which organizations billing has something of them.
    pub(super) organizations: BTreeSet<Uuid>,
    /// Whose the first of them is.
    pub(super) organization: Option<Uuid>,
}

impl Stream {
    /// The last version.
    pub(super) fn last(&self) -> u64 {
        self.recorded.len() as u64
    }

    /// Reads on from where it ends; `false` when there is more than `most` events, and not all was read.
    pub(super) async fn read_on(&mut self, owner: &StreamClient, id: Uuid, most: u64) -> Result<bool, OwnerError> {
        loop {
            let page = owner.events(id, self.last()).await?;
            for event in page.events {
                let (version, after) = (event.version, self.last());
                if version != after.saturating_add(1) {
                    return Err(OwnerError::Hole { aggregate: owner.aggregate(), id, version, after });
                }
                let event = event.envelope(owner.aggregate(), id)?;
                self.recorded.push(event.recorded_at.as_millis());
                let made = made(&event);
                let organizations = event.metadata.tenant.into_iter().chain(made.iter().map(|made| made.organization));
                self.organizations.extend(organizations);
                self.organization = self.organization.or(made.first().map(|made| made.organization));
                self.made.extend(made);
            }
            let Some(next) = page.next else { return Ok(true) };
            if self.last() >= most {
                return Ok(false);
            }
            if next != self.last() {
                return Err(OwnerError::Hole { aggregate: owner.aggregate(), id, version: next, after: self.last() });
            }
        }
    }
}
