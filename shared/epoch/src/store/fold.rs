//! Folding events into a state.
//!
//! States are folded by repositories, within transactions and up to a point in time, starting from nothing or from a
//! stored state that may be wrong. Invariants:
//! - versions are folded without gaps; a gap is an error;
//! - a stored state must be verified: the fold first reads the event that the state ends with, and if the log has no
//!   such event, the state is discarded;
//! - after a tombstone the state is that of a new aggregate, and versions continue.

use uuid::Uuid;

use super::{bounds::Versions, error::StoreError};
use crate::{
    aggregate::{Aggregate, VersionedState},
    event::{DomainEvent, SchemaId, version::Version},
};

/// The fields of a stored event that a fold needs, borrowed from the store's buffer.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// The event's place among its aggregate's events.
    pub version: Version,
    /// The event's stored name.
    pub event_name: &'a str,
    /// The writer's schema.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: &'a [u8],
}

/// A fold in progress.
#[derive(Debug)]
pub struct Fold<A> {
    id: Uuid,
    state: VersionedState<A>,
    /// Whether the event that the initial state ends with is still to be seen.
    unverified: bool,
    events_read: u64,
    tombstone: bool,
}

/// A completed fold.
#[derive(Debug)]
pub struct FoldedState<A> {
    /// The state after the last event.
    pub state: VersionedState<A>,
    /// The number of events folded onto the initial state.
    pub events_read: u64,
    /// Whether one of the folded events was a tombstone.
    pub tombstone: bool,
}

impl<A: Aggregate> Fold<A> {
    /// Starts from a state that this process folded, or from the default state.
    #[must_use]
    pub fn from(id: Uuid, state: VersionedState<A>) -> Self {
        Self { id, state, unverified: false, events_read: 0, tombstone: false }
    }

    /// Starts from a state that was stored elsewhere and must be verified against the log.
    #[must_use]
    pub fn verifying(id: Uuid, stored: VersionedState<A>) -> Self {
        let unverified = stored.version > Version::ZERO;
        Self { unverified, ..Self::from(id, stored) }
    }

    /// Returns the range of events to pass to [`take`](Self::take).
    #[must_use]
    pub fn bounds(&self) -> Versions {
        let before = self.state.version.get().saturating_sub(u64::from(self.unverified));
        Versions::since(Version::new(before))
    }

    /// Folds the next event.
    ///
    /// # Errors
    /// [`StoreError`] when the event's version is not the next one or its payload cannot be decoded.
    pub fn take(&mut self, event: StoredEvent<'_>) -> Result<(), StoreError> {
        if self.unverified && event.version == self.state.version {
            self.unverified = false;
            return Ok(());
        }
        if self.unverified || event.version != self.state.version.next() {
            let detail =
                format!("{} {} has a gap: version {} follows {}", A::NAME, self.id, event.version, self.state.version);
            return Err(StoreError::Refused { detail });
        }
        let decoded = A::Event::decode_all(event.event_name, event.schema, event.payload)?;
        self.tombstone |= decoded.iter().any(A::is_tombstone);
        self.state.evolve_stored(&decoded);
        self.events_read += 1;
        Ok(())
    }

    /// Returns the folded state, or `None` when the log does not contain the stored state's last event.
    #[must_use]
    pub fn finish(self) -> Option<FoldedState<A>> {
        let Self { state, unverified, events_read, tombstone, .. } = self;
        (!unverified).then_some(FoldedState { state, events_read, tombstone })
    }
}
