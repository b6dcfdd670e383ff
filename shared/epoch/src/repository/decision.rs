//! Decisions of commands, for repositories and for transactions over several aggregates.

use uuid::Uuid;

use super::outcome::ExecuteError;
use crate::{
    aggregate::{Aggregate, VersionedState, context::CommandContext},
    store::{Append, NewEvent, StoreError, state::Change},
};

/// The decision of a command on a state.
pub struct Decision<A> {
    /// The append to send to the store; `None` for a no-op that is not repeatable.
    pub append: Option<Append>,
    /// The effect on the aggregate.
    pub change: Change<A>,
}

impl<A: Aggregate> Decision<A> {
    /// Decides a command on `state`, after comparing its version with the one that the caller expects.
    ///
    /// `previous` is the event that produced the state, if that event is not committed yet.
    ///
    /// # Errors
    /// [`ExecuteError::Stale`], [`ExecuteError::Rejected`], and [`ExecuteError::Store`] when an event can't be encoded.
    pub fn on_state(
        id: Uuid,
        state: VersionedState<A>,
        previous: Option<Uuid>,
        command: &A::Command,
        context: &CommandContext,
    ) -> Result<Self, ExecuteError<A::Error>> {
        if let Some(expected) = context.expected
            && expected != state.version
        {
            return Err(ExecuteError::Stale { aggregate: A::NAME, id, expected, actual: state.version });
        }
        let events = state.state.decide(command).map_err(ExecuteError::Rejected)?;
        let change = Change::new(id, state, &events);
        if events.is_empty() && context.idempotency.is_none() {
            return Ok(Self { append: None, change });
        }
        let append = Append {
            aggregate: A::NAME,
            aggregate_id: id,
            expected: change.before,
            previous,
            events: events.iter().map(NewEvent::encode).collect::<Result<_, _>>().map_err(StoreError::from)?,
            context: context.clone(),
        };
        Ok(Self { append: Some(append), change })
    }
}
