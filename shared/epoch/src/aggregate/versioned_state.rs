//! An aggregate's state at a version.

use std::sync::Arc;

use super::aggregate::Aggregate;
use crate::event::version::Version;

/// A state and the version it is the state of.
#[derive(Debug)]
pub struct VersionedState<A> {
    /// The fold of all events up to `version`.
    pub state: Arc<A>,
    /// The number of events that were folded.
    pub version: Version,
}

impl<A> Clone for VersionedState<A> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), version: self.version }
    }
}

impl<A: Default> Default for VersionedState<A> {
    fn default() -> Self {
        Self { state: Arc::default(), version: Version::ZERO }
    }
}

impl<A: Aggregate> VersionedState<A> {
    /// Applies an event and counts one version. Copies the state only while it is shared; a tombstone resets it.
    pub fn evolve(&mut self, event: &A::Event) {
        self.evolve_stored(std::slice::from_ref(event));
    }

    /// Applies the current events that one stored event decodes to, none or several, and counts one version.
    pub fn evolve_stored(&mut self, events: &[A::Event]) {
        for event in events {
            if A::is_tombstone(event) {
                self.state = Arc::default();
            } else {
                Arc::make_mut(&mut self.state).evolve(event);
            }
        }
        self.version = self.version.next();
    }
}
