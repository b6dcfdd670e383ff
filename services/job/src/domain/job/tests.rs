//! Each cell of the table of commands and phases.

use contracts::job::{
    FileRole, JobAssigned, JobCancelled, JobCreated, JobEvent, JobFailed, JobFilesLinked, JobFilesUnlinked, JobLost,
    JobQueued, JobStarted, JobSucceeded, JobTimedOut,
};
use epoch::testkit::{Given, given};
use uuid::Uuid;

use super::{CreateJob, Job, JobCommand, JobError, MAX_INPUT_FILES, MAX_OUTPUT_FILES, Outcome};
use crate::domain::validation::InvalidText;

const ORGANIZATION: Uuid = Uuid::from_u128(1);
const CONFIGURATION: Uuid = Uuid::from_u128(2);
const USER: Uuid = Uuid::from_u128(3);
const MACHINE: Uuid = Uuid::from_u128(4);
const OTHER: Uuid = Uuid::from_u128(5);

fn file(number: u128) -> Uuid {
    Uuid::from_u128(100 + number)
}

fn files(numbers: &[u128]) -> Vec<Uuid> {
    numbers.iter().map(|number| file(*number)).collect()
}

fn create(file_ids: Vec<Uuid>) -> JobCommand {
    JobCommand::Create(CreateJob {
        organization_id: ORGANIZATION,
        job_configuration_id: CONFIGURATION,
        name: " First ".into(),
        command: vec!["true".into()],
        timeout_ms: 1_000,
        user_id: Some(USER),
        file_ids,
    })
}

fn created() -> JobEvent {
    JobCreated {
        organization_id: ORGANIZATION,
        job_configuration_id: CONFIGURATION,
        name: "First".into(),
        command: vec!["true".into()],
        timeout_ms: 1_000,
        user_id: Some(USER),
    }
    .into()
}

fn linked(numbers: &[u128]) -> JobEvent {
    JobFilesLinked { organization_id: ORGANIZATION, file_ids: files(numbers), role: FileRole::Input }.into()
}

fn unlinked(numbers: &[u128]) -> JobEvent {
    JobFilesUnlinked { organization_id: ORGANIZATION, file_ids: files(numbers), role: FileRole::Input }.into()
}

fn written(numbers: &[u128]) -> JobEvent {
    JobFilesLinked { organization_id: ORGANIZATION, file_ids: files(numbers), role: FileRole::Output }.into()
}

fn queued() -> JobEvent {
    JobQueued { organization_id: ORGANIZATION }.into()
}

fn assigned() -> JobEvent {
    JobAssigned { organization_id: ORGANIZATION, machine_id: MACHINE, machine_type: "gpu-1".into() }.into()
}

fn started() -> JobEvent {
    JobStarted { organization_id: ORGANIZATION, machine_id: MACHINE, user_id: Some(USER), machine_type: "gpu-1".into() }
        .into()
}

fn succeeded() -> JobEvent {
    JobSucceeded { organization_id: ORGANIZATION, exit_code: 0 }.into()
}

fn cancelled() -> JobEvent {
    JobCancelled { organization_id: ORGANIZATION, reason: "not needed".into() }.into()
}

fn lost() -> JobEvent {
    JobLost { organization_id: ORGANIZATION, reason: "silence".into() }.into()
}

fn replace(numbers: &[u128]) -> JobCommand {
    JobCommand::ReplaceFiles { file_ids: files(numbers) }
}

fn assign(machine_id: Uuid) -> JobCommand {
    JobCommand::Assign { machine_id, machine_type: "gpu-1".parse().unwrap() }
}

fn start(machine_id: Uuid) -> JobCommand {
    JobCommand::Start { machine_id }
}

fn finish(machine_id: Uuid, outcome: Outcome, outputs: &[u128]) -> JobCommand {
    JobCommand::Finish { machine_id, outcome, output_file_ids: files(outputs) }
}

fn succeed() -> JobCommand {
    finish(MACHINE, Outcome::Succeeded { exit_code: 0 }, &[])
}

fn fail() -> JobCommand {
    finish(MACHINE, Outcome::Failed { exit_code: None, reason: "no such program".into() }, &[])
}

fn cancel() -> JobCommand {
    JobCommand::Cancel { reason: "not needed".into() }
}

fn lose() -> JobCommand {
    JobCommand::Lose { reason: "silence".into() }
}

fn absent() -> Given<Job> {
    given([])
}

fn is_created() -> Given<Job> {
    given([created(), linked(&[1, 2])])
}

fn is_queued() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued()])
}

fn is_assigned() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued(), assigned()])
}

fn is_running() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued(), assigned(), started()])
}

fn has_succeeded() -> Given<Job> {
    given([created(), queued(), assigned(), started(), succeeded()])
}

#[track_caller]
fn refused(past: Given<Job>, command: &JobCommand, expected: &JobError) {
    past.when(command).then_rejected(|error| error == expected);
}

#[test]
fn goes_all_the_way() {
    absent()
        .when(&create(files(&[2, 1, 2])))
        .then([created(), linked(&[2, 1])])
        .when(&JobCommand::Queue)
        .then([queued()])
        .when(&assign(MACHINE))
        .then([assigned()])
        .when(&start(MACHINE))
        .then([started()])
        .when(&finish(MACHINE, Outcome::Succeeded { exit_code: 0 }, &[7, 8, 7]))
        .then([written(&[7, 8]), succeeded()]);
}

#[test]
fn is_created_once() {
    absent().when(&create(vec![])).then([created()]);
    refused(is_created(), &create(vec![]), &JobError::AlreadyCreated);
    refused(has_succeeded(), &create(vec![]), &JobError::AlreadyCreated);
    let many = (0..=MAX_INPUT_FILES as u128).map(file).collect();
    let too_many = JobError::TooManyFiles { count: MAX_INPUT_FILES + 1, limit: MAX_INPUT_FILES };
    refused(absent(), &create(many), &too_many);
}

#[test]
fn nothing_can_be_done_with_what_does_not_exist() {
    let commands = [replace(&[1]), JobCommand::Queue, assign(MACHINE), start(MACHINE), succeed(), cancel(), lose()];
    for command in commands {
        refused(absent(), &command, &JobError::Unknown);
    }
}

#[test]
fn files_are_replaced_by_the_fewest_events() {
    is_created().when(&replace(&[2, 1, 1])).then_nothing();
    is_created().when(&replace(&[1, 3, 3])).then([unlinked(&[2]), linked(&[3])]);
    is_created().when(&replace(&[])).then([unlinked(&[1, 2])]).when(&replace(&[])).then_nothing();
    is_created().when(&replace(&[1, 2, 4, 3])).then([linked(&[4, 3])]);
    for past in [is_queued(), is_assigned(), is_running()] {
        refused(past, &replace(&[1, 2]), &JobError::AlreadyQueued);
    }
    refused(has_succeeded(), &replace(&[]), &JobError::Ended);
    let many: Vec<u128> = (0..=MAX_INPUT_FILES as u128).collect();
    let too_many = JobError::TooManyFiles { count: MAX_INPUT_FILES + 1, limit: MAX_INPUT_FILES };
    refused(is_created(), &replace(&many), &too_many);
}

#[test]
fn is_queued_once() {
    for past in [is_queued(), is_assigned(), is_running()] {
        past.when(&JobCommand::Queue).then_nothing();
    }
    refused(has_succeeded(), &JobCommand::Queue, &JobError::Ended);
}

#[test]
fn is_assigned_once() {
    refused(is_created(), &assign(MACHINE), &JobError::NotQueued);
    refused(is_assigned(), &assign(MACHINE), &JobError::AlreadyAssigned);
    refused(is_running(), &assign(OTHER), &JobError::AlreadyAssigned);
    refused(has_succeeded(), &assign(OTHER), &JobError::Ended);
}

#[test]
fn starts_on_its_machine_only() {
    refused(is_created(), &start(MACHINE), &JobError::NotAssigned);
    refused(is_queued(), &start(MACHINE), &JobError::NotAssigned);
    refused(is_assigned(), &start(OTHER), &JobError::OtherMachine { machine_id: MACHINE });
    is_running().when(&start(MACHINE)).then_nothing();
    refused(is_running(), &start(OTHER), &JobError::OtherMachine { machine_id: MACHINE });
    refused(has_succeeded(), &start(MACHINE), &JobError::Ended);
}

#[test]
fn ends_as_its_machine_says() {
    let failed = JobFailed { organization_id: ORGANIZATION, exit_code: None, reason: "no such program".into() };
    is_running().when(&fail()).then([failed.clone().into()]);
    is_running()
        .when(&finish(MACHINE, Outcome::TimedOut, &[7]))
        .then([written(&[7]), JobTimedOut { organization_id: ORGANIZATION, timeout_ms: 1_000 }.into()]);
    is_running().when(&finish(MACHINE, Outcome::Cancelled { reason: "not needed".into() }, &[])).then([cancelled()]);
    is_assigned().when(&fail()).then([failed.into()]);
    refused(is_assigned(), &succeed(), &JobError::NotStarted);
    refused(is_assigned(), &finish(MACHINE, Outcome::TimedOut, &[]), &JobError::NotStarted);
    refused(is_queued(), &fail(), &JobError::NotAssigned);
    refused(is_created(), &fail(), &JobError::NotAssigned);
    let elsewhere = finish(OTHER, Outcome::Succeeded { exit_code: 0 }, &[]);
    for past in [is_assigned(), is_running(), has_succeeded()] {
        refused(past, &elsewhere, &JobError::OtherMachine { machine_id: MACHINE });
    }
    has_succeeded().when(&fail()).then_nothing();
    let many: Vec<u128> = (0..=MAX_OUTPUT_FILES as u128).collect();
    let too_many = JobError::TooManyFiles { count: MAX_OUTPUT_FILES + 1, limit: MAX_OUTPUT_FILES };
    refused(is_running(), &finish(MACHINE, Outcome::TimedOut, &many), &too_many);
    let unreadable = Outcome::Failed { exit_code: Some(1), reason: "a\0b".into() };
    refused(is_running(), &finish(MACHINE, unreadable, &[]), &JobError::Reason(InvalidText::Control));
}

#[test]
fn is_cancelled_whenever_it_has_not_ended() {
    for past in [is_created(), is_queued(), is_assigned(), is_running()] {
        past.when(&cancel()).then([cancelled()]).when(&cancel()).then_nothing();
    }
    is_running().when(&cancel()).then([cancelled()]).when(&succeed()).then_nothing();
    is_running().when(&cancel()).then([cancelled()]).when(&lose()).then_nothing();
    refused(is_queued().when(&cancel()).then([cancelled()]), &fail(), &JobError::NotAssigned);
    refused(has_succeeded(), &cancel(), &JobError::Ended);
    let silent = JobCommand::Cancel { reason: " ".into() };
    refused(is_queued(), &silent, &JobError::Reason(InvalidText::Empty));
}

#[test]
fn is_lost_with_its_machine() {
    for past in [is_assigned(), is_running()] {
        past.when(&lose()).then([lost()]).when(&succeed()).then_nothing().when(&lose()).then_nothing();
    }
    refused(is_created(), &lose(), &JobError::NotAssigned);
    refused(is_queued(), &lose(), &JobError::NotAssigned);
    has_succeeded().when(&lose()).then_nothing();
}

#[test]
fn knows_in_whose_hands_it_is() {
    for past in [is_assigned(), is_running()] {
        assert!(past.state().is_in_hands_of(MACHINE));
        assert!(!past.state().is_in_hands_of(OTHER));
    }
    for past in [absent(), is_created(), is_queued(), has_succeeded()] {
        assert!(!past.state().is_in_hands_of(MACHINE));
    }
}
