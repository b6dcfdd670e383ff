//! Tests of every command in every phase.

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
const OTHER_MACHINE: Uuid = Uuid::from_u128(5);

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

fn outputs_linked(numbers: &[u128]) -> JobEvent {
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
    JobLost { organization_id: ORGANIZATION, reason: "no heartbeat".into() }.into()
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
    JobCommand::Lose { reason: "no heartbeat".into() }
}

fn absent_job() -> Given<Job> {
    given([])
}

fn created_job() -> Given<Job> {
    given([created(), linked(&[1, 2])])
}

fn queued_job() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued()])
}

fn assigned_job() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued(), assigned()])
}

fn running_job() -> Given<Job> {
    given([created(), linked(&[1, 2]), queued(), assigned(), started()])
}

fn succeeded_job() -> Given<Job> {
    given([created(), queued(), assigned(), started(), succeeded()])
}

#[track_caller]
fn assert_rejected(past: Given<Job>, command: &JobCommand, expected: &JobError) {
    past.when(command).then_rejected(|error| error == expected);
}

#[test]
fn job_runs_from_creation_to_success() {
    absent_job()
        .when(&create(files(&[2, 1, 2])))
        .then([created(), linked(&[2, 1])])
        .when(&JobCommand::Queue)
        .then([queued()])
        .when(&assign(MACHINE))
        .then([assigned()])
        .when(&start(MACHINE))
        .then([started()])
        .when(&finish(MACHINE, Outcome::Succeeded { exit_code: 0 }, &[7, 8, 7]))
        .then([outputs_linked(&[7, 8]), succeeded()]);
}

#[test]
fn job_is_created_once() {
    absent_job().when(&create(vec![])).then([created()]);
    assert_rejected(created_job(), &create(vec![]), &JobError::AlreadyCreated);
    assert_rejected(succeeded_job(), &create(vec![]), &JobError::AlreadyCreated);
    let many = (0..=MAX_INPUT_FILES as u128).map(file).collect();
    let too_many = JobError::TooManyFiles { count: MAX_INPUT_FILES + 1, limit: MAX_INPUT_FILES };
    assert_rejected(absent_job(), &create(many), &too_many);
}

#[test]
fn commands_are_rejected_when_job_does_not_exist() {
    let commands = [replace(&[1]), JobCommand::Queue, assign(MACHINE), start(MACHINE), succeed(), cancel(), lose()];
    for command in commands {
        assert_rejected(absent_job(), &command, &JobError::NotFound);
    }
}

#[test]
fn replace_files_emits_only_the_difference() {
    created_job().when(&replace(&[2, 1, 1])).then_nothing();
    created_job().when(&replace(&[1, 3, 3])).then([unlinked(&[2]), linked(&[3])]);
    created_job().when(&replace(&[])).then([unlinked(&[1, 2])]).when(&replace(&[])).then_nothing();
    created_job().when(&replace(&[1, 2, 4, 3])).then([linked(&[4, 3])]);
    for past in [queued_job(), assigned_job(), running_job()] {
        assert_rejected(past, &replace(&[1, 2]), &JobError::AlreadyQueued);
    }
    assert_rejected(succeeded_job(), &replace(&[]), &JobError::Ended);
    let many: Vec<u128> = (0..=MAX_INPUT_FILES as u128).collect();
    let too_many = JobError::TooManyFiles { count: MAX_INPUT_FILES + 1, limit: MAX_INPUT_FILES };
    assert_rejected(created_job(), &replace(&many), &too_many);
}

#[test]
fn job_is_queued_once() {
    for past in [queued_job(), assigned_job(), running_job()] {
        past.when(&JobCommand::Queue).then_nothing();
    }
    assert_rejected(succeeded_job(), &JobCommand::Queue, &JobError::Ended);
}

#[test]
fn job_is_assigned_once() {
    assert_rejected(created_job(), &assign(MACHINE), &JobError::NotQueued);
    assert_rejected(assigned_job(), &assign(MACHINE), &JobError::AlreadyAssigned);
    assert_rejected(running_job(), &assign(OTHER_MACHINE), &JobError::AlreadyAssigned);
    assert_rejected(succeeded_job(), &assign(OTHER_MACHINE), &JobError::Ended);
}

#[test]
fn job_starts_only_on_its_assigned_machine() {
    assert_rejected(created_job(), &start(MACHINE), &JobError::NotAssigned);
    assert_rejected(queued_job(), &start(MACHINE), &JobError::NotAssigned);
    assert_rejected(assigned_job(), &start(OTHER_MACHINE), &JobError::OtherMachine { machine_id: MACHINE });
    running_job().when(&start(MACHINE)).then_nothing();
    assert_rejected(running_job(), &start(OTHER_MACHINE), &JobError::OtherMachine { machine_id: MACHINE });
    assert_rejected(succeeded_job(), &start(MACHINE), &JobError::Ended);
}

#[test]
fn job_ends_with_the_reported_outcome() {
    let failed = JobFailed { organization_id: ORGANIZATION, exit_code: None, reason: "no such program".into() };
    running_job().when(&fail()).then([failed.clone().into()]);
    running_job()
        .when(&finish(MACHINE, Outcome::TimedOut, &[7]))
        .then([outputs_linked(&[7]), JobTimedOut { organization_id: ORGANIZATION, timeout_ms: 1_000 }.into()]);
    running_job().when(&finish(MACHINE, Outcome::Cancelled { reason: "not needed".into() }, &[])).then([cancelled()]);
    assigned_job().when(&fail()).then([failed.into()]);
    assert_rejected(assigned_job(), &succeed(), &JobError::NotStarted);
    assert_rejected(assigned_job(), &finish(MACHINE, Outcome::TimedOut, &[]), &JobError::NotStarted);
    assert_rejected(queued_job(), &fail(), &JobError::NotAssigned);
    assert_rejected(created_job(), &fail(), &JobError::NotAssigned);
    let finish_on_other_machine = finish(OTHER_MACHINE, Outcome::Succeeded { exit_code: 0 }, &[]);
    for past in [assigned_job(), running_job(), succeeded_job()] {
        assert_rejected(past, &finish_on_other_machine, &JobError::OtherMachine { machine_id: MACHINE });
    }
    succeeded_job().when(&fail()).then_nothing();
    let many: Vec<u128> = (0..=MAX_OUTPUT_FILES as u128).collect();
    let too_many = JobError::TooManyFiles { count: MAX_OUTPUT_FILES + 1, limit: MAX_OUTPUT_FILES };
    assert_rejected(running_job(), &finish(MACHINE, Outcome::TimedOut, &many), &too_many);
    let invalid_reason = Outcome::Failed { exit_code: Some(1), reason: "a\0b".into() };
    assert_rejected(running_job(), &finish(MACHINE, invalid_reason, &[]), &JobError::Reason(InvalidText::Control));
}

#[test]
fn job_can_be_cancelled_until_it_ends() {
    for past in [created_job(), queued_job(), assigned_job(), running_job()] {
        past.when(&cancel()).then([cancelled()]).when(&cancel()).then_nothing();
    }
    running_job().when(&cancel()).then([cancelled()]).when(&succeed()).then_nothing();
    running_job().when(&cancel()).then([cancelled()]).when(&lose()).then_nothing();
    assert_rejected(queued_job().when(&cancel()).then([cancelled()]), &fail(), &JobError::NotAssigned);
    assert_rejected(succeeded_job(), &cancel(), &JobError::Ended);
    let without_reason = JobCommand::Cancel { reason: " ".into() };
    assert_rejected(queued_job(), &without_reason, &JobError::Reason(InvalidText::Empty));
}

#[test]
fn job_is_lost_only_while_assigned_or_running() {
    for past in [assigned_job(), running_job()] {
        past.when(&lose()).then([lost()]).when(&succeed()).then_nothing().when(&lose()).then_nothing();
    }
    assert_rejected(created_job(), &lose(), &JobError::NotAssigned);
    assert_rejected(queued_job(), &lose(), &JobError::NotAssigned);
    succeeded_job().when(&lose()).then_nothing();
}

#[test]
fn is_assigned_to_holds_while_assigned_or_running() {
    for past in [assigned_job(), running_job()] {
        assert!(past.state().is_assigned_to(MACHINE));
        assert!(!past.state().is_assigned_to(OTHER_MACHINE));
    }
    for past in [absent_job(), created_job(), queued_job(), succeeded_job()] {
        assert!(!past.state().is_assigned_to(MACHINE));
    }
}
