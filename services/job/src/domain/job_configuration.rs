//! The job configuration aggregate: a reusable command with its time limit.
//!
//! A configuration is defined once and validated as a whole on each change, so that errors surface here and not on a
//! machine. A retired configuration never changes again. The program name is never empty.

use contracts::job_configuration::{
    AGGREGATE, JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRetired, JobConfigurationRevised,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::validation::{InvalidText, validate_name};

/// Maximum number of arguments of a command, including the program.
pub const MAX_ARGUMENTS: usize = 64;
/// Maximum length of one argument, in characters.
pub const MAX_ARGUMENT_CHARS: usize = 4_096;
/// Maximum total length of all arguments, in bytes: an event must fit into one bus message.
pub const MAX_COMMAND_BYTES: usize = MAX_ARGUMENTS * MAX_ARGUMENT_CHARS;
/// Longest time limit of a run, in milliseconds: one day.
pub const MAX_TIMEOUT_MS: i64 = 86_400_000;
/// Default time limit of a run, in milliseconds: one hour.
pub const DEFAULT_TIMEOUT_MS: i64 = 3_600_000;

/// JobSettings that a job copies from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobSettings {
    /// Display name.
    pub name: String,
    /// Argument list; the first element is the program.
    pub command: Vec<String>,
    /// Time limit of a run, in milliseconds.
    pub timeout_ms: i64,
}

/// Validation errors of [`JobSettings`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    #[error("name {0}")]
    Name(InvalidText),
    #[error("command must begin with a program")]
    NoProgram,
    #[error("command has {count} arguments, the limit is {MAX_ARGUMENTS}")]
    TooManyArguments { count: usize },
    #[error("argument {index} is longer than {MAX_ARGUMENT_CHARS} characters")]
    ArgumentTooLong {
        /// Zero-based position in the argument list.
        index: usize,
    },
    /// Operating systems pass arguments as NUL-terminated strings.
    #[error("argument {index} contains a NUL character")]
    ArgumentHasNul {
        /// Zero-based position in the argument list.
        index: usize,
    },
    #[error("command has {bytes} bytes, the limit is {MAX_COMMAND_BYTES}")]
    CommandTooLong { bytes: usize },
    #[error("timeout_ms must be 1 to {MAX_TIMEOUT_MS}, not {timeout_ms}")]
    Timeout { timeout_ms: i64 },
}

impl JobSettings {
    /// Validates the settings and returns them with a trimmed name.
    ///
    /// # Errors
    /// The first violated rule.
    pub fn validate(&self) -> Result<Self, InvalidSettings> {
        let name = validate_name(&self.name).map_err(InvalidSettings::Name)?;
        if self.command.first().is_none_or(String::is_empty) {
            return Err(InvalidSettings::NoProgram);
        }
        let count = self.command.len();
        if count > MAX_ARGUMENTS {
            return Err(InvalidSettings::TooManyArguments { count });
        }
        for (index, argument) in self.command.iter().enumerate() {
            if argument.contains('\0') {
                return Err(InvalidSettings::ArgumentHasNul { index });
            }
            if argument.chars().count() > MAX_ARGUMENT_CHARS {
                return Err(InvalidSettings::ArgumentTooLong { index });
            }
        }
        let bytes = self.command.iter().map(String::len).sum();
        if bytes > MAX_COMMAND_BYTES {
            return Err(InvalidSettings::CommandTooLong { bytes });
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(InvalidSettings::Timeout { timeout_ms: self.timeout_ms });
        }
        Ok(Self { name, command: self.command.clone(), timeout_ms: self.timeout_ms })
    }
}

/// A command to a job configuration.
#[derive(Debug, Clone)]
pub enum JobConfigurationCommand {
    Define {
        organization_id: Uuid,
        settings: JobSettings,
    },
    /// Replaces the settings; existing jobs keep their copies.
    Revise(JobSettings),
    /// Retires the configuration: no new jobs can be created from it.
    Retire,
}

/// Rejections of the job configuration aggregate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobConfigurationError {
    #[error("the job configuration does not exist")]
    NotFound,
    #[error("the job configuration already exists")]
    AlreadyDefined,
    #[error("the job configuration is retired")]
    Retired,
    #[error(transparent)]
    Invalid(#[from] InvalidSettings),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Phase {
    #[default]
    Absent,
    Active,
    Retired,
}

/// Template of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobConfiguration {
    phase: Phase,
    organization_id: Uuid,
    settings: JobSettings,
}

impl JobConfiguration {
    /// Returns the owning organization, or `None` when the configuration does not exist.
    #[must_use]
    pub fn organization(&self) -> Option<Uuid> {
        (self.phase != Phase::Absent).then_some(self.organization_id)
    }

    /// Returns the settings for a new job.
    ///
    /// # Errors
    /// When the configuration does not exist or is retired.
    pub fn settings_for_new_job(&self) -> Result<&JobSettings, JobConfigurationError> {
        match self.phase {
            Phase::Absent => Err(JobConfigurationError::NotFound),
            Phase::Retired => Err(JobConfigurationError::Retired),
            Phase::Active => Ok(&self.settings),
        }
    }
}

impl Aggregate for JobConfiguration {
    const NAME: &'static str = AGGREGATE;
    type Command = JobConfigurationCommand;
    type Event = JobConfigurationEvent;
    type Error = JobConfigurationError;

    fn decide(&self, command: &JobConfigurationCommand) -> Result<Vec<JobConfigurationEvent>, JobConfigurationError> {
        use JobConfigurationCommand::{Define, Retire, Revise};
        let organization_id = self.organization_id;
        match (self.phase, command) {
            (Phase::Absent, Define { organization_id, settings }) => {
                let JobSettings { name, command, timeout_ms } = settings.validate()?;
                let organization_id = *organization_id;
                Ok(vec![JobConfigurationDefined { organization_id, name, command, timeout_ms }.into()])
            }
            (Phase::Absent, Revise(_) | Retire) => Err(JobConfigurationError::NotFound),
            (_, Define { .. }) => Err(JobConfigurationError::AlreadyDefined),
            (Phase::Active, Revise(settings)) => {
                let settings = settings.validate()?;
                if settings == self.settings {
                    return Ok(vec![]);
                }
                let JobSettings { name, command, timeout_ms } = settings;
                Ok(vec![JobConfigurationRevised { organization_id, name, command, timeout_ms }.into()])
            }
            (Phase::Retired, Revise(_)) => Err(JobConfigurationError::Retired),
            (Phase::Active, Retire) => Ok(vec![JobConfigurationRetired { organization_id }.into()]),
            (Phase::Retired, Retire) => Ok(vec![]),
        }
    }

    fn evolve(&mut self, event: &JobConfigurationEvent) {
        match event.clone() {
            JobConfigurationEvent::JobConfigurationDefined(event) => {
                let JobConfigurationDefined { organization_id, name, command, timeout_ms } = event;
                let settings = JobSettings { name, command, timeout_ms };
                *self = Self { phase: Phase::Active, organization_id, settings };
            }
            JobConfigurationEvent::JobConfigurationRevised(event) => {
                let JobConfigurationRevised { name, command, timeout_ms, .. } = event;
                self.settings = JobSettings { name, command, timeout_ms };
            }
            JobConfigurationEvent::JobConfigurationRetired(_) => self.phase = Phase::Retired,
        }
    }
}

#[cfg(test)]
mod tests;
