//! From events to a state.
//!
//! The problem: a state is folded in several places (by a repository, within a transaction, up to some moment), from nothing
//! or from a state that was kept somewhere, and one that was kept may be wrong.
//!
//! The invariants:
//! - versions are taken one after the other; a hole is an error, not a state;
//! - a kept state is only a starting point: the fold begins with the very event it should end with, and where that isn't in the
//!   log, the kept state counts for nothing;
//! - after a tombstone the state is the one of an aggregate that never was, and versions go on.

use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    bounds::Versions,
    cache::Loaded,
    event::{DomainEvent, SchemaId},
    store::StoreError,
    version::Version,
};

/// What a fold needs of a stored event; borrowed from where it was read.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Its place among the aggregate's events.
    pub version: Version,
    /// The event's name.
    pub event_name: &'a str,
    /// The schema the payload was written with.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: &'a [u8],
}

/// A fold under way.
#[derive(Debug)]
pub struct Fold<A> {
    id: Uuid,
    loaded: Loaded<A>,
    /// The kept state's last event has not been seen yet.
    unproven: bool,
    read: u64,
    tombstone: bool,
}

/// A folded state.
#[derive(Debug)]
pub struct Folded<A> {
    /// The state.
    pub loaded: Loaded<A>,
    /// How many events were folded.
    pub read: u64,
    /// Whether one of them was a tombstone.
    pub tombstone: bool,
}

impl<A: Aggregate> Fold<A> {
    /// Goes on from a state that was folded here, or from nothing.
    #[must_use]
    pub fn from(id: Uuid, loaded: Loaded<A>) -> Self {
        Self { id, loaded, unproven: false, read: 0, tombstone: false }
    }

    /// Goes on from a state that was kept elsewhere, if the log agrees that there is such a version.
    #[must_use]
    pub fn proving(id: Uuid, kept: Loaded<A>) -> Self {
        let unproven = kept.version > Version::ZERO;
        Self { unproven, ..Self::from(id, kept) }
    }

    /// Which events to give to [`take`](Self::take).
    #[must_use]
    pub fn bounds(&self) -> Versions {
        let before = self.loaded.version.get().saturating_sub(u64::from(self.unproven));
        Versions::since(Version::new(before))
    }

    /// Folds the next event.
    ///
    /// # Errors
    /// [`StoreError`] when it isn't the next one or can't be decoded.
    pub fn take(&mut self, event: Recorded<'_>) -> Result<(), StoreError> {
        if self.unproven && event.version == self.loaded.version {
            self.unproven = false;
            return Ok(());
        }
        if self.unproven || event.version != self.loaded.version.next() {
            let detail = format!("{} {} has version {} after {}", A::NAME, self.id, event.version, self.loaded.version);
            return Err(StoreError::Refused { detail });
        }
        let decoded = A::Event::decode_all(event.event_name, event.schema, event.payload)?;
        self.tombstone |= decoded.iter().any(A::is_tombstone);
        self.loaded.evolve_stored(&decoded);
        self.read += 1;
        Ok(())
    }

    /// The state; `None` when the kept state it began with has no place in the log.
    #[must_use]
    pub fn finish(self) -> Option<Folded<A>> {
        let Self { loaded, unproven, read, tombstone, .. } = self;
        (!unproven).then_some(Folded { loaded, read, tombstone })
    }
}
