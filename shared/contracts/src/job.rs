//! Events of jobs.
//!
//! A run that started ends exactly once, with [`JobSucceeded`], [`JobFailed`], [`JobTimedOut`], [`JobCancelled`] or [`JobLost`]. A file is
//! linked from its link event to its unlink event.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate.
pub const AGGREGATE: &str = "job";

epoch::events! {
    /// An event of a job.
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

/// Role of a file in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileRole {
    /// The job reads the file.
    Input,
    /// The job wrote the file.
    Output,
}

/// A job was created with a copy of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCreated {
    pub organization_id: Uuid,
    pub job_configuration_id: Uuid,
    pub name: String,
    /// Argument list; the first argument is the program.
    pub command: Vec<String>,
    /// Maximum run time, in milliseconds.
    pub timeout_ms: i64,
    /// User that created the job; `None` if a service created it.
    pub user_id: Option<Uuid>,
}

/// Files were linked to the job, which shares their storage cost from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilesLinked {
    pub organization_id: Uuid,
    /// Linked files, without duplicates.
    pub file_ids: Vec<Uuid>,
    pub role: FileRole,
}

/// Files were unlinked from the job, which no longer shares their storage cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilesUnlinked {
    pub organization_id: Uuid,
    /// Unlinked files, without duplicates.
    pub file_ids: Vec<Uuid>,
    pub role: FileRole,
}

/// The job was queued for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobQueued {
    pub organization_id: Uuid,
}

/// The job was assigned to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAssigned {
    pub organization_id: Uuid,
    pub machine_id: Uuid,
    /// Type of the machine, as named by its operator. Events from before this field read as `default`.
    pub machine_type: String,
}

/// The job's program started. Its run time is metered from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {
    pub organization_id: Uuid,
    pub machine_id: Uuid,
    /// User that the run is attributed to; `None` if there is none.
    pub user_id: Option<Uuid>,
    /// Type of the machine, as named by its operator. Events from before this field read as `default`.
    pub machine_type: String,
}

/// The job's program exited successfully.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSucceeded {
    pub organization_id: Uuid,
    pub exit_code: i32,
}

/// The job's program exited with a failure or could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailed {
    pub organization_id: Uuid,
    /// Exit code of the program; `None` if it never ran or was ended by a signal.
    pub exit_code: Option<i32>,
    pub reason: String,
}

/// The job exceeded its maximum run time and was terminated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTimedOut {
    pub organization_id: Uuid,
    /// Maximum run time that was exceeded, in milliseconds.
    pub timeout_ms: i64,
}

/// The job was cancelled before its program exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCancelled {
    pub organization_id: Uuid,
    pub reason: String,
}

/// The job's machine was lost; the outcome of the job is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLost {
    pub organization_id: Uuid,
    /// Human-readable description of the loss.
    pub reason: String,
}
