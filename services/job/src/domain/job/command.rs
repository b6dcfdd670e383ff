//! Commands of the job aggregate.

use uuid::Uuid;

use crate::domain::machine_type::MachineType;

/// A new job: a copy of its configuration, with its first input files.
#[derive(Debug, Clone)]
pub struct CreateJob {
    pub organization_id: Uuid,
    pub job_configuration_id: Uuid,
    /// Display name.
    pub name: String,
    /// Argument list; the first element is the program.
    pub command: Vec<String>,
    /// Time limit of a run, in milliseconds.
    pub timeout_ms: i64,
    /// User who creates the job; billing attributes the run to this user.
    pub user_id: Option<Uuid>,
    /// Input files.
    pub file_ids: Vec<Uuid>,
}

/// Outcome of a run, as reported by its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded {
        exit_code: i32,
    },
    /// The program failed, or could not be started.
    Failed {
        /// Exit code of the program, if it exited.
        exit_code: Option<i32>,
        /// Human-readable cause.
        reason: String,
    },
    /// The machine ended the program at its time limit.
    TimedOut,
    /// The machine ended the program on request.
    Cancelled {
        /// Human-readable cause.
        reason: String,
    },
}

/// A command to a job.
#[derive(Debug, Clone)]
pub enum JobCommand {
    Create(CreateJob),
    /// Replaces the whole set of input files.
    ReplaceFiles {
        /// The new set; repeated ids count once.
        file_ids: Vec<Uuid>,
    },
    /// Queues the job for a machine.
    Queue,
    /// Assigns the job to a machine.
    Assign {
        machine_id: Uuid,
        machine_type: MachineType,
    },
    /// Records that the program started.
    Start {
        machine_id: Uuid,
    },
    /// Records the outcome of the run, or that the program could not be started.
    Finish {
        machine_id: Uuid,
        outcome: Outcome,
        /// Files written by the program; repeated ids count once.
        output_file_ids: Vec<Uuid>,
    },
    /// Cancels the job on a user's request.
    Cancel {
        /// Human-readable cause.
        reason: String,
    },
    /// Marks the job as lost: its machine stopped sending heartbeats.
    Lose {
        /// Human-readable cause.
        reason: String,
    },
}
