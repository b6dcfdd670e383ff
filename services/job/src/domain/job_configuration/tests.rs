//! What a configuration takes and refuses.

use contracts::job_configuration::{
    JobConfigurationDefined, JobConfigurationEvent, JobConfigurationRetired, JobConfigurationRevised,
};
use epoch::{Aggregate, testkit::given};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    InvalidSettings, JobConfiguration, JobConfigurationCommand, JobConfigurationError, MAX_ARGUMENT, MAX_ARGUMENTS,
    MAX_TIMEOUT_MS, Settings,
};
use crate::domain::validation::InvalidText;

const ORGANIZATION: Uuid = Uuid::from_u128(1);

fn settings() -> Settings {
    Settings { name: "Checksum".into(), command: vec!["sha256sum".into(), "-b".into()], timeout_ms: 60_000 }
}

fn define(settings: Settings) -> JobConfigurationCommand {
    JobConfigurationCommand::Define { organization_id: ORGANIZATION, settings }
}

fn defined() -> JobConfigurationEvent {
    let Settings { name, command, timeout_ms } = settings();
    JobConfigurationDefined { organization_id: ORGANIZATION, name, command, timeout_ms }.into()
}

fn revised(settings: Settings) -> JobConfigurationEvent {
    let Settings { name, command, timeout_ms } = settings;
    JobConfigurationRevised { organization_id: ORGANIZATION, name, command, timeout_ms }.into()
}

fn retired() -> JobConfigurationEvent {
    JobConfigurationRetired { organization_id: ORGANIZATION }.into()
}

#[test]
fn lives_once() {
    let shorter = Settings { timeout_ms: 1, ..settings() };
    given::<JobConfiguration>([])
        .when(&define(Settings { name: " Checksum ".into(), ..settings() }))
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
        given::<JobConfiguration>([]).when(&command).then_rejected(|error| *error == JobConfigurationError::Unknown);
    }
}

#[test]
fn new_jobs_are_made_from_an_active_one_only() {
    let unknown = given::<JobConfiguration>([]);
    assert_eq!(unknown.state().for_new_jobs(), Err(JobConfigurationError::Unknown));
    assert_eq!(unknown.state().organization(), None);
    let active = given::<JobConfiguration>([defined()]);
    assert_eq!(active.state().for_new_jobs(), Ok(&settings()));
    assert_eq!(active.state().organization(), Some(ORGANIZATION));
    let retired = given::<JobConfiguration>([defined(), retired()]);
    assert_eq!(retired.state().for_new_jobs(), Err(JobConfigurationError::Retired));
}

#[test]
fn settings_that_can_not_work_are_refused() {
    let with_command = |command: Vec<String>| Settings { command, ..settings() };
    let cases = [
        (Settings { name: String::new(), ..settings() }, InvalidSettings::Name(InvalidText::Empty)),
        (with_command(vec![]), InvalidSettings::NoProgram),
        (with_command(vec![String::new(), "a".into()]), InvalidSettings::NoProgram),
        (
            with_command(vec!["a".into(); MAX_ARGUMENTS + 1]),
            InvalidSettings::TooManyArguments { count: MAX_ARGUMENTS + 1 },
        ),
        (with_command(vec!["a".into(), "b\0".into()]), InvalidSettings::ArgumentHasNul { index: 1 }),
        (with_command(vec!["a".into(), "b".repeat(MAX_ARGUMENT + 1)]), InvalidSettings::ArgumentTooLong { index: 1 }),
        (
            with_command(vec!["ä".repeat(MAX_ARGUMENT); MAX_ARGUMENTS]),
            InvalidSettings::CommandTooLong { bytes: 2 * MAX_ARGUMENT * MAX_ARGUMENTS },
        ),
        (Settings { timeout_ms: 0, ..settings() }, InvalidSettings::Timeout { timeout_ms: 0 }),
        (
            Settings { timeout_ms: MAX_TIMEOUT_MS + 1, ..settings() },
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
    let largest = Settings {
        name: "a".repeat(200),
        command: vec!["a".repeat(MAX_ARGUMENT); MAX_ARGUMENTS],
        timeout_ms: MAX_TIMEOUT_MS,
    };
    assert_eq!(largest.checked(), Ok(largest.clone()));
    let emptiest = Settings { command: vec!["a".into(), String::new()], ..settings() };
    assert!(emptiest.checked().is_ok(), "an empty argument is one");
}

fn command() -> impl Strategy<Value = JobConfigurationCommand> {
    let settings = ("[ a-b]{0,3}", prop::collection::vec("[ab]{0,2}", 0..3), 0..3_i64)
        .prop_map(|(name, command, timeout_ms)| Settings { name, command, timeout_ms });
    prop_oneof![
        settings.clone().prop_map(define),
        settings.prop_map(JobConfigurationCommand::Revise),
        Just(JobConfigurationCommand::Retire),
    ]
}

proptest! {
    #[test]
    fn whatever_is_asked_events_are_whole_and_nothing_follows_the_end(
        commands in prop::collection::vec(command(), 0..30)
    ) {
        let mut configuration = JobConfiguration::default();
        let mut events = Vec::new();
        for command in commands {
            for event in configuration.decide(&command).unwrap_or_default() {
                configuration.evolve(&event);
                events.push(event);
            }
            if let Ok(settings) = configuration.for_new_jobs() {
                prop_assert_eq!(&settings.checked(), &Ok(settings.clone()));
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
