//! Outcomes and errors of commands.

use uuid::Uuid;

use crate::{
    event::version::Version,
    store::{CommandLookup, CommandRecord, StoreError},
};

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionOutcome {
    /// The changed aggregate; of a repeated command, the aggregate that its first execution changed.
    pub aggregate_id: Uuid,
    /// The aggregate's version after the command.
    pub version: Version,
    /// The number of events that this call appended.
    pub appended: usize,
    /// Whether the command had been committed earlier.
    pub repeated: bool,
}

impl ExecutionOutcome {
    pub(super) fn repeated(record: CommandRecord) -> Self {
        Self { aggregate_id: record.aggregate_id, version: record.version, appended: 0, repeated: true }
    }

    /// Returns the outcome of a repeated command from the store's look-up of its id; `None` for a new command.
    ///
    /// # Errors
    /// [`ExecuteError::CommandReused`] when the id belongs to another command.
    pub fn of_lookup<E: std::error::Error>(
        lookup: Option<CommandLookup>,
        command_id: Uuid,
    ) -> Result<Option<Self>, ExecuteError<E>> {
        match lookup {
            None => Ok(None),
            Some(CommandLookup::Same(record)) => Ok(Some(Self::repeated(record))),
            Some(CommandLookup::Other) => Err(ExecuteError::CommandReused { command_id }),
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// The aggregate rejected the command.
    #[error(transparent)]
    Rejected(E),
    /// All attempts met write conflicts.
    #[error("{aggregate} {id} was changed concurrently in every attempt: expected version {expected}, found {actual}")]
    Conflict {
        /// The aggregate's name.
        aggregate: &'static str,
        /// The aggregate's id.
        id: Uuid,
        /// The version that the last attempt was based on.
        expected: Version,
        /// The version that the store had.
        actual: Version,
    },
    /// The aggregate is not at the version that the caller has seen.
    #[error("{aggregate} {id} is at version {actual}, not {expected}")]
    Stale {
        /// The aggregate's name.
        aggregate: &'static str,
        /// The aggregate's id.
        id: Uuid,
        /// The version that the caller has seen.
        expected: Version,
        /// The current version.
        actual: Version,
    },
    /// The command's id was used for another command.
    #[error("command id {command_id} belongs to another command")]
    CommandReused {
        /// The command's id.
        command_id: Uuid,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
