//! The job aggregate: one run of a program on a machine, from creation to its end.
//!
//! The machine, the user and the lease expiry act on a job concurrently, and customers pay for its run time and files. A job
//! therefore starts at most once, on the machine it was assigned to, and ends at most once. Every command has a defined
//! result in every phase:
//!
//! ```text
//!            Create          Queue          Assign(m)           Start(m)
//!   absent ─────────▶ created ─────▶ queued ─────────▶ assigned ─────────▶ running
//!                        │              │                 │                   │
//!                        │ Cancel       │ Cancel          │ Cancel, Lose,     │ Cancel, Lose,
//!                        ▼              ▼                 ▼ Finish(m)*        ▼ Finish(m)
//!                     ╔═══════════════════════════════════════════════════════════════╗
//!                     ║ ended: succeeded · failed · timed out · cancelled · lost      ║
//!                     ╚═══════════════════════════════════════════════════════════════╝
//!   * a job that never started can only fail or be cancelled.
//! ```
//!
//! | command      | created      | queued       | assigned    | running    | ended                            |
//! |--------------|--------------|--------------|-------------|------------|----------------------------------|
//! | ReplaceFiles | link, unlink | rejected     | rejected    | rejected   | rejected                         |
//! | Queue        | queued       | no event     | no event    | no event   | rejected                         |
//! | Assign(m)    | rejected     | assigned     | rejected    | rejected   | rejected                         |
//! | Start(m)     | rejected     | rejected     | running ¹   | no event ¹ | rejected                         |
//! | Finish(m)    | rejected     | rejected     | ended ¹     | ended ¹    | no event ¹                       |
//! | Cancel       | cancelled    | cancelled    | cancelled   | cancelled  | no event if cancelled, else rejected |
//! | Lose         | rejected     | rejected     | lost        | lost       | no event                         |
//!
//! ¹ only from the machine the job is assigned to; other machines are rejected.
//!
//! Cancelling a running job ends it at once, although its machine notices only at its next heartbeat. The customer does not
//! pay for the time in between, because the result is no longer wanted. The machine still reports the end of its run, so
//! `Finish` on an ended job is accepted and appends nothing. Outputs of that run are not linked to the job.

mod command;
mod error;
mod file_ids;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use contracts::job::{
    AGGREGATE, FileRole, JobAssigned, JobCancelled, JobCreated, JobEvent, JobFailed, JobFilesLinked, JobFilesUnlinked,
    JobLost, JobQueued, JobStarted, JobSucceeded, JobTimedOut,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::file_ids::validate_file_ids;
pub use self::{
    command::{CreateJob, JobCommand, Outcome},
    error::JobError,
    file_ids::{MAX_INPUT_FILES, MAX_OUTPUT_FILES, unique_file_ids},
};
use super::{
    machine_type::{DEFAULT, MachineType},
    validation::{validate_name, validate_reason},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Phase {
    #[default]
    Absent,
    Created,
    Queued,
    Assigned {
        machine_id: Uuid,
    },
    Running {
        machine_id: Uuid,
    },
    Ended {
        cancelled: bool,
        machine_id: Option<Uuid>,
    },
}

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Job {
    phase: Phase,
    organization_id: Uuid,
    name: String,
    command: Vec<String>,
    timeout_ms: i64,
    user_id: Option<Uuid>,
    input_file_ids: BTreeSet<Uuid>,
    /// Type of the machine the job is assigned to. Snapshots from before this field lack it.
    #[serde(default = "default_machine_type")]
    machine_type: String,
}

fn default_machine_type() -> String {
    DEFAULT.to_owned()
}

impl Job {
    /// Returns the owning organization, or `None` when the job does not exist.
    #[must_use]
    pub fn organization(&self) -> Option<Uuid> {
        (self.phase != Phase::Absent).then_some(self.organization_id)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Argument list; the first element is the program.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Time limit of a run, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> i64 {
        self.timeout_ms
    }

    #[must_use]
    pub fn input_file_ids(&self) -> &BTreeSet<Uuid> {
        &self.input_file_ids
    }

    /// Returns whether `machine` holds the job and should keep working on it.
    #[must_use]
    pub fn is_assigned_to(&self, machine: Uuid) -> bool {
        match self.phase {
            Phase::Assigned { machine_id } | Phase::Running { machine_id } => machine_id == machine,
            Phase::Absent | Phase::Created | Phase::Queued | Phase::Ended { .. } => false,
        }
    }

    fn create(&self, job: &CreateJob) -> Result<Vec<JobEvent>, JobError> {
        if self.phase != Phase::Absent {
            return Err(JobError::AlreadyCreated);
        }
        let name = validate_name(&job.name).map_err(JobError::Name)?;
        let file_ids = validate_file_ids(&job.file_ids, MAX_INPUT_FILES)?;
        let organization_id = job.organization_id;
        let created = JobCreated {
            organization_id,
            job_configuration_id: job.job_configuration_id,
            name,
            command: job.command.clone(),
            timeout_ms: job.timeout_ms,
            user_id: job.user_id,
        };
        let mut events = vec![created.into()];
        if !file_ids.is_empty() {
            events.push(JobFilesLinked { organization_id, file_ids, role: FileRole::Input }.into());
        }
        Ok(events)
    }

    fn replace_files(&self, file_ids: &[Uuid]) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => return Err(JobError::NotFound),
            Phase::Ended { .. } => return Err(JobError::Ended),
            Phase::Queued | Phase::Assigned { .. } | Phase::Running { .. } => return Err(JobError::AlreadyQueued),
            Phase::Created => {}
        }
        let new_ids = validate_file_ids(file_ids, MAX_INPUT_FILES)?;
        let new_set: BTreeSet<Uuid> = new_ids.iter().copied().collect();
        let unlinked: Vec<Uuid> = self.input_file_ids.difference(&new_set).copied().collect();
        let linked: Vec<Uuid> = new_ids.into_iter().filter(|id| !self.input_file_ids.contains(id)).collect();
        let (organization_id, role) = (self.organization_id, FileRole::Input);
        let mut events = Vec::new();
        if !unlinked.is_empty() {
            events.push(JobFilesUnlinked { organization_id, file_ids: unlinked, role }.into());
        }
        if !linked.is_empty() {
            events.push(JobFilesLinked { organization_id, file_ids: linked, role }.into());
        }
        Ok(events)
    }

    fn queue(&self) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => Err(JobError::NotFound),
            Phase::Created => Ok(vec![JobQueued { organization_id: self.organization_id }.into()]),
            Phase::Queued | Phase::Assigned { .. } | Phase::Running { .. } => Ok(vec![]),
            Phase::Ended { .. } => Err(JobError::Ended),
        }
    }

    fn assign(&self, machine_id: Uuid, machine_type: &MachineType) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => Err(JobError::NotFound),
            Phase::Created => Err(JobError::NotQueued),
            Phase::Queued => {
                let (organization_id, machine_type) = (self.organization_id, machine_type.to_string());
                Ok(vec![JobAssigned { organization_id, machine_id, machine_type }.into()])
            }
            Phase::Assigned { .. } | Phase::Running { .. } => Err(JobError::AlreadyAssigned),
            Phase::Ended { .. } => Err(JobError::Ended),
        }
    }

    fn start(&self, machine: Uuid) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => Err(JobError::NotFound),
            Phase::Created | Phase::Queued => Err(JobError::NotAssigned),
            Phase::Assigned { machine_id } | Phase::Running { machine_id } if machine_id != machine => {
                Err(JobError::OtherMachine { machine_id })
            }
            Phase::Assigned { machine_id } => {
                let Self { organization_id, user_id, .. } = *self;
                let machine_type = self.machine_type.clone();
                Ok(vec![JobStarted { organization_id, machine_id, user_id, machine_type }.into()])
            }
            Phase::Running { .. } => Ok(vec![]),
            Phase::Ended { .. } => Err(JobError::Ended),
        }
    }

    fn finish(&self, machine: Uuid, outcome: &Outcome, output_file_ids: &[Uuid]) -> Result<Vec<JobEvent>, JobError> {
        let never_started = match self.phase {
            Phase::Absent => return Err(JobError::NotFound),
            Phase::Created | Phase::Queued | Phase::Ended { machine_id: None, .. } => {
                return Err(JobError::NotAssigned);
            }
            Phase::Assigned { machine_id }
            | Phase::Running { machine_id }
            | Phase::Ended { machine_id: Some(machine_id), .. }
                if machine_id != machine =>
            {
                return Err(JobError::OtherMachine { machine_id });
            }
            Phase::Ended { .. } => return Ok(vec![]),
            Phase::Assigned { .. } => true,
            Phase::Running { .. } => false,
        };
        if never_started && matches!(outcome, Outcome::Succeeded { .. } | Outcome::TimedOut) {
            return Err(JobError::NotStarted);
        }
        let file_ids = validate_file_ids(output_file_ids, MAX_OUTPUT_FILES)?;
        let organization_id = self.organization_id;
        let mut events = Vec::new();
        if !file_ids.is_empty() {
            events.push(JobFilesLinked { organization_id, file_ids, role: FileRole::Output }.into());
        }
        events.push(match outcome {
            Outcome::Succeeded { exit_code } => JobSucceeded { organization_id, exit_code: *exit_code }.into(),
            Outcome::Failed { exit_code, reason } => {
                let reason = validate_reason(reason).map_err(JobError::Reason)?;
                JobFailed { organization_id, exit_code: *exit_code, reason }.into()
            }
            Outcome::TimedOut => JobTimedOut { organization_id, timeout_ms: self.timeout_ms }.into(),
            Outcome::Cancelled { reason } => {
                let reason = validate_reason(reason).map_err(JobError::Reason)?;
                JobCancelled { organization_id, reason }.into()
            }
        });
        Ok(events)
    }

    fn cancel(&self, reason: &str) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => Err(JobError::NotFound),
            Phase::Created | Phase::Queued | Phase::Assigned { .. } | Phase::Running { .. } => {
                let reason = validate_reason(reason).map_err(JobError::Reason)?;
                Ok(vec![JobCancelled { organization_id: self.organization_id, reason }.into()])
            }
            Phase::Ended { cancelled: true, .. } => Ok(vec![]),
            Phase::Ended { cancelled: false, .. } => Err(JobError::Ended),
        }
    }

    fn lose(&self, reason: &str) -> Result<Vec<JobEvent>, JobError> {
        match self.phase {
            Phase::Absent => Err(JobError::NotFound),
            Phase::Created | Phase::Queued => Err(JobError::NotAssigned),
            Phase::Assigned { .. } | Phase::Running { .. } => {
                let reason = validate_reason(reason).map_err(JobError::Reason)?;
                Ok(vec![JobLost { organization_id: self.organization_id, reason }.into()])
            }
            Phase::Ended { .. } => Ok(vec![]),
        }
    }

    fn end(&mut self, cancelled: bool) {
        let machine_id = match self.phase {
            Phase::Assigned { machine_id } | Phase::Running { machine_id } => Some(machine_id),
            Phase::Ended { machine_id, .. } => machine_id,
            Phase::Absent | Phase::Created | Phase::Queued => None,
        };
        self.phase = Phase::Ended { cancelled, machine_id };
    }
}

impl Aggregate for Job {
    const NAME: &'static str = AGGREGATE;
    type Command = JobCommand;
    type Event = JobEvent;
    type Error = JobError;

    fn decide(&self, command: &JobCommand) -> Result<Vec<JobEvent>, JobError> {
        match command {
            JobCommand::Create(job) => self.create(job),
            JobCommand::ReplaceFiles { file_ids } => self.replace_files(file_ids),
            JobCommand::Queue => self.queue(),
            JobCommand::Assign { machine_id, machine_type } => self.assign(*machine_id, machine_type),
            JobCommand::Start { machine_id } => self.start(*machine_id),
            JobCommand::Finish { machine_id, outcome, output_file_ids } => {
                self.finish(*machine_id, outcome, output_file_ids)
            }
            JobCommand::Cancel { reason } => self.cancel(reason),
            JobCommand::Lose { reason } => self.lose(reason),
        }
    }

    fn evolve(&mut self, event: &JobEvent) {
        match event {
            JobEvent::JobCreated(event) => {
                let JobCreated { organization_id, name, command, timeout_ms, user_id, .. } = event.clone();
                let (phase, input_file_ids) = (Phase::Created, BTreeSet::new());
                let machine_type = default_machine_type();
                *self =
                    Self { phase, organization_id, name, command, timeout_ms, user_id, input_file_ids, machine_type };
            }
            JobEvent::JobFilesLinked(event) if event.role == FileRole::Input => {
                self.input_file_ids.extend(&event.file_ids);
            }
            JobEvent::JobFilesUnlinked(event) if event.role == FileRole::Input => {
                for file_id in &event.file_ids {
                    self.input_file_ids.remove(file_id);
                }
            }
            // No decision depends on output files.
            JobEvent::JobFilesLinked(_) | JobEvent::JobFilesUnlinked(_) => {}
            JobEvent::JobQueued(_) => self.phase = Phase::Queued,
            JobEvent::JobAssigned(event) => {
                self.phase = Phase::Assigned { machine_id: event.machine_id };
                self.machine_type.clone_from(&event.machine_type);
            }
            JobEvent::JobStarted(event) => self.phase = Phase::Running { machine_id: event.machine_id },
            JobEvent::JobCancelled(_) => self.end(true),
            JobEvent::JobSucceeded(_) | JobEvent::JobFailed(_) | JobEvent::JobTimedOut(_) | JobEvent::JobLost(_) => {
                self.end(false)
            }
        }
    }
}
