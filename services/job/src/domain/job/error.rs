//! Rejections of the job aggregate.

use uuid::Uuid;

use crate::domain::validation::InvalidText;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error("the job does not exist")]
    NotFound,
    #[error("the job already exists")]
    AlreadyCreated,
    #[error("the job is already queued; its input files can no longer change")]
    AlreadyQueued,
    #[error("the job is not queued")]
    NotQueued,
    #[error("the job is already assigned to a machine")]
    AlreadyAssigned,
    #[error("the job is not assigned to a machine")]
    NotAssigned,
    #[error("the job is assigned to machine {machine_id}")]
    OtherMachine {
        /// The machine that holds the job.
        machine_id: Uuid,
    },
    /// The outcome implies a run, but the program never started.
    #[error("the job has not started")]
    NotStarted,
    #[error("the job has ended")]
    Ended,
    #[error("name {0}")]
    Name(InvalidText),
    #[error("reason {0}")]
    Reason(InvalidText),
    #[error("{count} files exceed the limit of {limit} for a job")]
    TooManyFiles { count: usize, limit: usize },
}
