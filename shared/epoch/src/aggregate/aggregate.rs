//! Aggregates: the pure core of every service.
//!
//! The problem: business rules that mix with loading, saving and versions are hard to test and easy to get wrong.
//!
//! The invariant: an aggregate decides and evolves, nothing else. It is synchronous and does no I/O; whatever else a
//! decision needs goes into the command. It never sees a version, so it can't get one wrong.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::event::DomainEvent;

/// A consistency boundary: commands to one aggregate are decided one after the other.
pub trait Aggregate: Default + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The aggregate's name, in snake case. It also names the topic its events travel on.
    const NAME: &'static str;
    /// What it can be asked to do.
    type Command: Send + Sync;
    /// What can happen to it.
    type Event: DomainEvent;
    /// Why it says no.
    type Error: std::error::Error + Send + Sync + 'static;
    /// The shape of the state as it is kept in [snapshots](crate::snapshot) and blobs. Raise it when the state's fields or what
    /// [`evolve`](Self::evolve) makes of events have changed: what was kept in another shape is ignored and made anew.
    const STATE_SCHEMA: u32 = 1;

    /// Decides which events a command causes in this state. No event means: nothing to do.
    ///
    /// # Errors
    /// The aggregate's own reason for refusing the command.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Changes the state as the event says. Total: an event that has happened can't be refused.
    fn evolve(&mut self, event: &Self::Event);

    /// Whether this event deletes the aggregate.
    ///
    /// After a tombstone the state is `Default` (`evolve` isn't asked), what was kept of it goes away, and commands are decided as
    /// on an aggregate that never was: one may create it again under its id, and whether it may is up to
    /// [`decide`](Self::decide). Its events stay, and its versions go on where they were: a version never comes twice, so
    /// subscriptions and buses notice nothing special.
    #[must_use]
    fn is_tombstone(event: &Self::Event) -> bool {
        let _ = event;
        false
    }
}
