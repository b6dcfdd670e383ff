//! Job configurations: ways to run jobs, written down once.
//!
//! The problem: what a job runs must be right when it is written down, not when a machine meets it.
//!
//! The invariant: a configuration is defined once and checked whole each time it changes; a retired one never changes
//! again. The program is never empty, so that each job that was created can at least be tried.

use contracts::job_configuration::{
    AGGREGATE, JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRetired, JobConfigurationRevised,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::validation::{self, InvalidText};

/// The most arguments of a command, the program included.
pub const MAX_ARGUMENTS: usize = 64;
/// The most characters of one argument.
pub const MAX_ARGUMENT: usize = 4_096;
/// The most bytes of all arguments together, so that an event with them fits into a message of the bus.
pub const MAX_COMMAND_BYTES: usize = MAX_ARGUMENTS * MAX_ARGUMENT;
/// The longest time a run may be given, in milliseconds: a day.
pub const MAX_TIMEOUT_MS: i64 = 86_400_000;
/// The time a run is given when nobody says otherwise, in milliseconds: an hour.
pub const DEFAULT_TIMEOUT_MS: i64 = 3_600_000;

/// What a job is run with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// What people call it.
    pub name: String,
    /// The argument list; the first is the program.
    pub command: Vec<String>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: i64,
}

/// Why settings aren't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The name isn't one.
    #[error("name {0}")]
    Name(InvalidText),
    /// There is no program.
    #[error("command must begin with a program")]
    NoProgram,
    /// There are too many arguments.
    #[error("command has {count} arguments, at most {MAX_ARGUMENTS} are allowed")]
    TooManyArguments {
        /// How many.
        count: usize,
    },
    /// An argument is too long.
    #[error("argument {index} has more than {MAX_ARGUMENT} characters")]
    ArgumentTooLong {
        /// Which, from 0.
        index: usize,
    },
    /// An argument can't be given to a program.
    #[error("argument {index} has a NUL character")]
    ArgumentHasNul {
        /// Which, from 0.
        index: usize,
    },
    /// All arguments together are too long.
    #[error("command has {bytes} bytes, at most {MAX_COMMAND_BYTES} are allowed")]
    CommandTooLong {
        /// How many.
        bytes: usize,
    },
    /// The time is out of range.
    #[error("timeout_ms is {timeout_ms}, it must be 1 to {MAX_TIMEOUT_MS}")]
    Timeout {
        /// What was asked for.
        timeout_ms: i64,
    },
}

impl Settings {
    /// The same settings with the name trimmed, if they are all right.
    ///
    /// # Errors
    /// [`InvalidSettings`]: the first thing that is wrong.
    pub fn checked(&self) -> Result<Self, InvalidSettings> {
        let name = validation::name(&self.name).map_err(InvalidSettings::Name)?;
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
            if argument.chars().count() > MAX_ARGUMENT {
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

/// What a configuration can be asked to do.
#[derive(Debug, Clone)]
pub enum JobConfigurationCommand {
    /// Writes it down.
    Define {
        /// The organization that owns it from now on.
        organization_id: Uuid,
        /// What jobs are run with.
        settings: Settings,
    },
    /// Replaces what jobs are run with; jobs that exist keep what they have.
    Revise(Settings),
    /// Ends it: no new jobs from it.
    Retire,
}

/// Why a configuration refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobConfigurationError {
    /// There is none.
    #[error("the job configuration does not exist")]
    Unknown,
    /// It was defined before.
    #[error("the job configuration exists already")]
    AlreadyDefined,
    /// It is retired.
    #[error("the job configuration is retired")]
    Retired,
    /// The settings aren't right.
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

/// A way to run jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobConfiguration {
    phase: Phase,
    organization_id: Uuid,
    settings: Settings,
}

impl JobConfiguration {
    /// The organization that owns it; `None` when there is no such configuration.
    #[must_use]
    pub fn organization(&self) -> Option<Uuid> {
        (self.phase != Phase::Absent).then_some(self.organization_id)
    }

    /// What new jobs are run with.
    ///
    /// # Errors
    /// When no job can be made from it: it isn't there, or is retired.
    pub fn for_new_jobs(&self) -> Result<&Settings, JobConfigurationError> {
        match self.phase {
            Phase::Absent => Err(JobConfigurationError::Unknown),
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
                let Settings { name, command, timeout_ms } = settings.checked()?;
                let organization_id = *organization_id;
                Ok(vec![JobConfigurationDefined { organization_id, name, command, timeout_ms }.into()])
            }
            (Phase::Absent, Revise(_) | Retire) => Err(JobConfigurationError::Unknown),
            (_, Define { .. }) => Err(JobConfigurationError::AlreadyDefined),
            (Phase::Active, Revise(settings)) => {
                let settings = settings.checked()?;
                if settings == self.settings {
                    return Ok(vec![]);
                }
                let Settings { name, command, timeout_ms } = settings;
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
                let settings = Settings { name, command, timeout_ms };
                *self = Self { phase: Phase::Active, organization_id, settings };
            }
            JobConfigurationEvent::JobConfigurationRevised(event) => {
                let JobConfigurationRevised { name, command, timeout_ms, .. } = event;
                self.settings = Settings { name, command, timeout_ms };
            }
            JobConfigurationEvent::JobConfigurationRetired(_) => self.phase = Phase::Retired,
        }
    }
}

#[cfg(test)]
mod tests;
