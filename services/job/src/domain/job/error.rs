//! Why a job refuses.

use uuid::Uuid;

use crate::domain::validation::InvalidText;

/// Why a job refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// There is none.
    #[error("the job does not exist")]
    Unknown,
    /// It was created before.
    #[error("the job exists already")]
    AlreadyCreated,
    /// Its files can't change any more.
    #[error("the job is queued, its files can't change any more")]
    AlreadyQueued,
    /// It doesn't wait for a machine.
    #[error("the job is not queued")]
    NotQueued,
    /// Another claim was faster.
    #[error("the job is assigned already")]
    AlreadyAssigned,
    /// No machine has it.
    #[error("the job is not assigned to a machine")]
    NotAssigned,
    /// Another machine has it.
    #[error("the job is assigned to machine {machine_id}")]
    OtherMachine {
        /// Which.
        machine_id: Uuid,
    },
    /// Its program never ran.
    #[error("the job has not been started")]
    NotStarted,
    /// It has ended.
    #[error("the job has ended")]
    Ended,
    /// The name isn't one.
    #[error("name {0}")]
    Name(InvalidText),
    /// The reason isn't one.
    #[error("reason {0}")]
    Reason(InvalidText),
    /// There are too many files.
    #[error("{count} files are more than the {limit} a job can have")]
    TooManyFiles {
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
}
