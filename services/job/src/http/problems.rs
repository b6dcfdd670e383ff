//! Problem responses for domain rejections.

use http_kit::{IntoProblem, Problem};

use crate::domain::{
    job::JobError,
    job_configuration::{InvalidSettings, JobConfigurationError},
    reported_instant::ImpossibleInstant,
};

impl IntoProblem for JobConfigurationError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotFound => Problem::not_found(detail),
            Self::AlreadyDefined => Problem::conflict(detail),
            Self::Retired => {
                Problem::conflict(detail).of_kind("/problems/job-configuration-retired", "job configuration is retired")
            }
            Self::Invalid(invalid) => Problem::unprocessable(detail.clone()).at(pointer(&invalid), detail),
        }
    }
}

fn pointer(invalid: &InvalidSettings) -> String {
    match invalid {
        InvalidSettings::Name(_) => "/name".to_owned(),
        InvalidSettings::NoProgram
        | InvalidSettings::TooManyArguments { .. }
        | InvalidSettings::CommandTooLong { .. } => "/command".to_owned(),
        InvalidSettings::ArgumentTooLong { index } | InvalidSettings::ArgumentHasNul { index } => {
            format!("/command/{index}")
        }
        InvalidSettings::Timeout { .. } => "/timeout_ms".to_owned(),
    }
}

impl IntoProblem for JobError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotFound => Problem::not_found(detail),
            Self::AlreadyCreated | Self::AlreadyAssigned | Self::NotQueued | Self::NotAssigned | Self::NotStarted => {
                Problem::conflict(detail)
            }
            Self::AlreadyQueued => Problem::conflict(detail).of_kind("/problems/job-queued", "job is queued"),
            Self::OtherMachine { .. } => {
                Problem::conflict(detail).of_kind("/problems/other-machine", "job is assigned to another machine")
            }
            Self::Ended => Problem::conflict(detail).of_kind("/problems/job-ended", "job has ended"),
            Self::Name(_) => Problem::unprocessable(detail.clone()).at("/name", detail),
            Self::Reason(_) => Problem::unprocessable(detail.clone()).at("/reason", detail),
            // No pointer: the list is `file_ids` in one request and `output_file_ids` in another.
            Self::TooManyFiles { .. } => Problem::unprocessable(detail),
        }
    }
}

impl IntoProblem for ImpossibleInstant {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        Problem::unprocessable(detail.clone())
            .of_kind("/problems/impossible-instant", "impossible instant")
            .at("/at", detail)
    }
}
