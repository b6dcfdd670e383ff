//! Appends and their outcomes.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    aggregate::context::CommandContext,
    delivery::fast_path::Receipt,
    event::{CodecError, DomainEvent, EncodedEvent, envelope::Envelope, version::Version},
};

/// An encoded event that is not committed. The store assigns its version and position.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event's id (UUIDv7).
    pub event_id: Uuid,
    /// The event's name.
    pub name: &'static str,
    /// Payload and schema.
    pub encoded: EncodedEvent,
}

/// The maximum length of an event's payload in bytes.
///
/// Brokers accept messages of 1 MiB by default, headers included. A larger event would be rejected by the broker and
/// block all later events.
pub const MAX_PAYLOAD_BYTES: usize = 768 * 1024;

impl NewEvent {
    /// Encodes an event and gives it an id.
    ///
    /// # Errors
    /// [`CodecError`] when the event does not match its schema or is longer than [`MAX_PAYLOAD_BYTES`].
    pub fn encode<E: DomainEvent>(event: &E) -> Result<Self, CodecError> {
        let encoded = event.encode()?;
        if encoded.payload.len() > MAX_PAYLOAD_BYTES {
            let detail = format!("payload has {} bytes, the limit is {MAX_PAYLOAD_BYTES}", encoded.payload.len());
            return Err(CodecError::Encode { name: event.name().to_owned(), detail });
        }
        Ok(Self { event_id: Uuid::now_v7(), name: event.name(), encoded })
    }
}

/// The events of one command to one aggregate.
#[derive(Debug, Clone)]
pub struct Append {
    /// The aggregate's name.
    pub aggregate: &'static str,
    /// The aggregate's id.
    pub aggregate_id: Uuid,
    /// The version that the decision was based on.
    pub expected: Version,
    /// The id of the last event that the decision was based on, if that event was not committed yet.
    ///
    /// A version alone does not identify an uncommitted event: another process may commit another event under the same
    /// version.
    pub previous: Option<Uuid>,
    /// The decided events. Empty for a repeatable no-op, of which only the result is stored.
    pub events: Vec<NewEvent>,
    /// The command's identity and origin.
    pub context: CommandContext,
}

/// The stored result of a command, kept for as long as the command may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// The aggregate that the command changed.
    pub aggregate_id: Uuid,
    /// The aggregate's version after the command.
    pub version: Version,
}

/// The outcome of an append.
#[derive(Debug)]
pub enum AppendOutcome {
    /// The events were committed.
    Committed {
        /// The events with versions and positions.
        events: Vec<Arc<Envelope>>,
        /// Completes when the subscriptions of this process have processed the events.
        receipt: Receipt,
    },
    /// The aggregate was not at the expected version; nothing was appended.
    Conflict {
        /// The aggregate's version.
        actual: Version,
    },
    /// The command was committed earlier; nothing was appended.
    Repeated(CommandRecord),
    /// The command's id belongs to another command; nothing was appended.
    Reused,
}

/// An earlier command with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLookup {
    /// The same command, with its stored result.
    Same(CommandRecord),
    /// A different command or a different request digest.
    Other,
}
