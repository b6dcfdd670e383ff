//! Tests of the job configuration aggregate.

use contracts::job_configuration::{
    JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRetired, JobConfigurationRevised,
};
use epoch::{Aggregate, testkit::given};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    InvalidSettings, JobConfiguration, JobConfigurationCommand, JobConfigurationError, JobSettings, MAX_ARGUMENT_CHARS,
    MAX_ARGUMENTS, MAX_TIMEOUT_MS,
};
use crate::domain::validation::InvalidText;

const ORGANIZATION: Uuid = Uuid::from_u128(1);

fn settings() -> JobSettings {
    JobSettings { name: "Checksum".into(), command: vec!["sha256sum".into(), "-b".into()], timeout_ms: 60_000 }
}

fn define(settings: JobSettings) -> JobConfigurationCommand {
    JobConfigurationCommand::Define { organization_id: ORGANIZATION, settings }
}

fn defined() -> JobConfigurationEvent {
    let JobSettings { name, command, timeout_ms } = settings();
    JobConfigurationDefined { organization_id: ORGANIZATION, name, command, timeout_ms }.into()
}

fn revised(settings: JobSettings) -> JobConfigurationEvent {
    let JobSettings { name, command, timeout_ms } = settings;
    JobConfigurationRevised { organization_id: ORGANIZATION, name, command, timeout_ms }.into()
}

fn retired() -> JobConfigurationEvent {
    JobConfigurationRetired { organization_id: ORGANIZATION }.into()
}

#[test]
fn configuration_is_defined_revised_and_retired_once() {
    let shorter = JobSettings { timeout_ms: 1, ..settings() };
    given::<JobConfiguration>([])
        .when(&define(JobSettings { name: " Checksum ".into(), ..settings() }))
        .then([defined()])
        .when(&JobConfigurationCommand::Revise(settings()))
        .then_nothing()
        .when(&JobConfigurationCommand::Revise(shorter.clone()))
        .then([revised(shorter)])
        .when(&JobConfigurationCommand::Retire)
        .then([retired()])
        .when(&JobConfigurationCommand::Retire)
        .then_nothing()
        .when(&JobConfigurationCommand::Revise(settings()))
        .then_rejected(|error| *error == JobConfigurationError::Retired);
    given::<JobConfiguration>([defined()])
        .when(&define(settings()))
        .then_rejected(|error| *error == JobConfigurationError::AlreadyDefined);
    for command in [JobConfigurationCommand::Revise(settings()), JobConfigurationCommand::Retire] {
        given::<JobConfiguration>([]).when(&command).then_rejected(|error| *error == JobConfigurationError::NotFound);
    }
}

#[test]
fn settings_for_new_job_require_active_configuration() {
    let absent = given::<JobConfiguration>([]);
    assert_eq!(absent.state().settings_for_new_job(), Err(JobConfigurationError::NotFound));
    assert_eq!(absent.state().organization(), None);
    let active = given::<JobConfiguration>([defined()]);
    assert_eq!(active.state().settings_for_new_job(), Ok(&settings()));
    assert_eq!(active.state().organization(), Some(ORGANIZATION));
    let retired = given::<JobConfiguration>([defined(), retired()]);
    assert_eq!(retired.state().settings_for_new_job(), Err(JobConfigurationError::Retired));
}

#[test]
fn invalid_settings_are_rejected() {
    let with_command = |command: Vec<String>| JobSettings { command, ..settings() };
    let cases = [
        (JobSettings { name: String::new(), ..settings() }, InvalidSettings::Name(InvalidText::Empty)),
        (with_command(vec![]), InvalidSettings::NoProgram),
        (with_command(vec![String::new(), "a".into()]), InvalidSettings::NoProgram),
        (
            with_command(vec!["a".into(); MAX_ARGUMENTS + 1]),
            InvalidSettings::TooManyArguments { count: MAX_ARGUMENTS + 1 },
        ),
        (with_command(vec!["a".into(), "b\0".into()]), InvalidSettings::ArgumentHasNul { index: 1 }),
        (
            with_command(vec!["a".into(), "b".repeat(MAX_ARGUMENT_CHARS + 1)]),
            InvalidSettings::ArgumentTooLong { index: 1 },
        ),
        (
            with_command(vec!["ä".repeat(MAX_ARGUMENT_CHARS); MAX_ARGUMENTS]),
            InvalidSettings::CommandTooLong { bytes: 2 * MAX_ARGUMENT_CHARS * MAX_ARGUMENTS },
        ),
        (JobSettings { timeout_ms: 0, ..settings() }, InvalidSettings::Timeout { timeout_ms: 0 }),
        (
            JobSettings { timeout_ms: MAX_TIMEOUT_MS + 1, ..settings() },
            InvalidSettings::Timeout { timeout_ms: MAX_TIMEOUT_MS + 1 },
        ),
    ];
    for (settings, reason) in cases {
        for (past, command) in
            [(vec![], define(settings.clone())), (vec![defined()], JobConfigurationCommand::Revise(settings.clone()))]
        {
            let expected = JobConfigurationError::Invalid(reason.clone());
            given::<JobConfiguration>(past).when(&command).then_rejected(|error| *error == expected);
        }
    }
    let largest = JobSettings {
        name: "a".repeat(200),
        command: vec!["a".repeat(MAX_ARGUMENT_CHARS); MAX_ARGUMENTS],
        timeout_ms: MAX_TIMEOUT_MS,
    };
    assert_eq!(largest.validate(), Ok(largest.clone()));
    let with_empty_argument = JobSettings { command: vec!["a".into(), String::new()], ..settings() };
    assert!(with_empty_argument.validate().is_ok(), "arguments may be empty");
}

fn command() -> impl Strategy<Value = JobConfigurationCommand> {
    let settings = ("[ a-b]{0,3}", prop::collection::vec("[ab]{0,2}", 0..3), 0..3_i64)
        .prop_map(|(name, command, timeout_ms)| JobSettings { name, command, timeout_ms });
    prop_oneof![
        settings.clone().prop_map(define),
        settings.prop_map(JobConfigurationCommand::Revise),
        Just(JobConfigurationCommand::Retire),
    ]
}

proptest! {
    #[test]
    fn events_are_valid_and_end_with_retirement(
        commands in prop::collection::vec(command(), 0..30)
    ) {
        let mut configuration = JobConfiguration::default();
        let mut events = Vec::new();
        for command in commands {
            for event in configuration.decide(&command).unwrap_or_default() {
                configuration.evolve(&event);
                events.push(event);
            }
            if let Ok(settings) = configuration.settings_for_new_job() {
                prop_assert_eq!(&settings.validate(), &Ok(settings.clone()));
            }
        }
        for (index, event) in events.iter().enumerate() {
            let is_first = matches!(event, JobConfigurationEvent::JobConfigurationDefined(_));
            prop_assert_eq!(is_first, index == 0);
            let is_end = matches!(event, JobConfigurationEvent::JobConfigurationRetired(_));
            prop_assert!(!is_end || index + 1 == events.len());
        }
    }
}
