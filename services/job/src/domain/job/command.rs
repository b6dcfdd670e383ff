//! What a job can be asked to do.

use uuid::Uuid;

use crate::domain::machine_type::MachineType;

/// A job as it is created: a copy of its configuration, and its first input files.
#[derive(Debug, Clone)]
pub struct CreateJob {
    /// The organization that owns it.
    pub organization_id: Uuid,
    /// The configuration it is created from.
    pub job_configuration_id: Uuid,
    /// What people call it.
    pub name: String,
    /// The argument list; the first is the program.
    pub command: Vec<String>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: i64,
    /// The user who creates it, and whom its run is attributed to.
    pub user_id: Option<Uuid>,
    /// Its input files.
    pub file_ids: Vec<Uuid>,
}

/// How a run ended, as its machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended and said that it succeeded.
    Succeeded {
        /// What it said.
        exit_code: i32,
    },
    /// The program ended and said that it failed, or couldn't be run.
    Failed {
        /// What it said, if it said something.
        exit_code: Option<i32>,
        /// Why, in words for people.
        reason: String,
    },
    /// The program was ended because it took too long.
    TimedOut,
    /// The program was ended because somebody wanted it.
    Cancelled {
        /// Why, in words for people.
        reason: String,
    },
}

/// What a job can be asked to do.
#[derive(Debug, Clone)]
pub enum JobCommand {
    /// Creates it.
    Create(CreateJob),
    /// Makes these its input files, and no others.
    ReplaceFiles {
        /// The whole set; repeated ids count once.
        file_ids: Vec<Uuid>,
    },
    /// Lets it wait for a machine.
    Queue,
    /// Gives it to a machine.
    Assign {
        /// Which.
        machine_id: Uuid,
        /// Of which type it is.
        machine_type: MachineType,
    },
    /// Its program runs.
    Start {
        /// Where.
        machine_id: Uuid,
    },
    /// Its program ended, or will never run.
    Finish {
        /// Where.
        machine_id: Uuid,
        /// How.
        outcome: Outcome,
        /// What it wrote; repeated ids count once.
        output_file_ids: Vec<Uuid>,
    },
    /// Ends it because somebody wants it.
    Cancel {
        /// Why, in words for people.
        reason: String,
    },
    /// Gives it up, since nobody knows what became of it.
    Lose {
        /// What is known, in words for people.
        reason: String,
    },
}
