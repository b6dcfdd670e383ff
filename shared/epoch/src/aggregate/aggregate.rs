//! The decision model of one consistency boundary.
//!
//! An aggregate decides and evolves, nothing else. It is synchronous and does no I/O; all other data that a decision
//! needs is part of the command. An aggregate never sees a version and therefore cannot set a wrong one. Business rules
//! stay testable without loading, saving and concurrency.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::event::{CodecError, DomainEvent, envelope::Envelope};

/// A consistency boundary: commands to one aggregate are decided one after the other.
pub trait Aggregate: Default + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The aggregate's name in snake case. It also names the topic of its events.
    const NAME: &'static str;
    /// The commands that the aggregate accepts.
    type Command: Send + Sync;
    /// The events that change the aggregate.
    type Event: DomainEvent;
    /// The reasons to reject a command.
    type Error: std::error::Error + Send + Sync + 'static;
    /// The version of the state's layout in [snapshots](crate::snapshot) and [state stores](crate::state).
    ///
    /// Increase it when the fields of the state or the effects of [`evolve`](Self::evolve) change. Stored states of
    /// another version are ignored and rebuilt from events.
    const STATE_SCHEMA: u32 = 1;

    /// Decides which events a command causes in this state. No events means that there is nothing to do.
    ///
    /// # Errors
    /// The aggregate's reason to reject the command.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Applies an event to the state. Infallible: a committed event cannot be rejected.
    fn evolve(&mut self, event: &Self::Event);

    /// Returns whether this event deletes the aggregate.
    ///
    /// After a tombstone the state is `Default` (`evolve` is not called), stored states and snapshots are deleted, and
    /// commands are decided as on a new aggregate. A command may create the aggregate again under its id if
    /// [`decide`](Self::decide) allows it. Events are kept and versions continue, so subscriptions and buses need no
    /// special case.
    #[must_use]
    fn is_tombstone(event: &Self::Event) -> bool {
        let _ = event;
        false
    }
}

// Here and not with `Envelope`: events do not depend on aggregates.
impl Envelope {
    /// Decodes the event if it belongs to the aggregate type `A`. Returns `None` for other aggregates.
    ///
    /// # Errors
    /// [`CodecError`] when the event belongs to `A` and cannot be decoded.
    pub fn decode_as<A: Aggregate>(&self) -> Result<Option<A::Event>, CodecError> {
        if self.aggregate == A::NAME { self.decode().map(Some) } else { Ok(None) }
    }
}
