//! What happens to a job.
//!
//! The problem: a job runs on a machine that may fail, and its time and its files are paid for.
//!
//! The invariant: a run that started ends once, in one of [`JobSucceeded`], [`JobFailed`], [`JobTimedOut`], [`JobCancelled`]
//! and [`JobLost`]; a file is linked from its link event to its unlink event.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The aggregate's name.
pub const AGGREGATE: &str = "job";

epoch::events! {
    /// What happens to a job.
    pub enum JobEvent {
        JobCreated = [schema!("job/JobCreated")],
        JobFilesLinked = [schema!("job/JobFilesLinked")],
        JobFilesUnlinked = [schema!("job/JobFilesUnlinked")],
        JobQueued = [schema!("job/JobQueued")],
        JobAssigned = [schema!("job/JobAssigned"), schema!("job/JobAssigned.1")],
        JobStarted = [schema!("job/JobStarted"), schema!("job/JobStarted.1")],
        JobSucceeded = [schema!("job/JobSucceeded")],
        JobFailed = [schema!("job/JobFailed")],
        JobTimedOut = [schema!("job/JobTimedOut")],
        JobCancelled = [schema!("job/JobCancelled")],
        JobLost = [schema!("job/JobLost")],
    }
}

/// What a file is to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileRole {
    /// The job reads it.
    Input,
    /// The job wrote it.
    Output,
}

/// A job was created, with a copy of its configuration as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCreated {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The configuration it was created from.
    pub job_configuration_id: Uuid,
    /// What people call it.
    pub name: String,
    /// The argument list; the first is the program.
    pub command: Vec<String>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: i64,
    /// The user who created it; `None` when it wasn't a user.
    pub user_id: Option<Uuid>,
}

/// Files were linked to the job. From now on it shares the cost of storing them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilesLinked {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The files that were linked, each once.
    pub file_ids: Vec<Uuid>,
    /// What the files are to the job.
    pub role: FileRole,
}

/// Files were unlinked from the job. It no longer shares the cost of storing them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilesUnlinked {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The files that were unlinked, each once.
    pub file_ids: Vec<Uuid>,
    /// What the files were to the job.
    pub role: FileRole,
}

/// The job waits for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobQueued {
    /// The organization that owns the job.
    pub organization_id: Uuid,
}

/// A machine was chosen to run the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAssigned {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The machine.
    pub machine_id: Uuid,
    /// The machine's type, as whoever runs it calls it; before it was told, every machine was of the default one.
    pub machine_type: String,
}

/// The job's program runs. From now on its time counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The machine it runs on.
    pub machine_id: Uuid,
    /// The user whom the run is attributed to; `None` when there is none.
    pub user_id: Option<Uuid>,
    /// The machine's type, as whoever runs it calls it; before it was told, every machine was of the default one.
    pub machine_type: String,
}

/// The job's program ended and said that it succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSucceeded {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The program's exit code.
    pub exit_code: i32,
}

/// The job's program ended and said that it failed, or couldn't be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailed {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// The program's exit code; `None` when there is none: it never ran, or a signal ended it.
    pub exit_code: Option<i32>,
    /// Why, in words for people.
    pub reason: String,
}

/// The job's program was ended because it took too long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTimedOut {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// How long it was allowed to take, in milliseconds.
    pub timeout_ms: i64,
}

/// Somebody ended the job before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCancelled {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// Why, in words for people.
    pub reason: String,
}

/// The job's machine went away; how the job ended is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLost {
    /// The organization that owns the job.
    pub organization_id: Uuid,
    /// What is known about it, in words for people.
    pub reason: String,
}
