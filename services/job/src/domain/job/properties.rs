//! Properties of a job under arbitrary command sequences.

use std::collections::BTreeSet;

use contracts::job::{FileRole, JobEvent};
use epoch::Aggregate;
use proptest::prelude::*;
use uuid::Uuid;

use super::{CreateJob, Job, JobCommand, Outcome};

fn machine() -> impl Strategy<Value = Uuid> {
    (1..=2_u128).prop_map(Uuid::from_u128)
}

fn file_ids() -> impl Strategy<Value = Vec<Uuid>> {
    prop::collection::vec((10..16_u128).prop_map(Uuid::from_u128), 0..6)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Succeeded { exit_code: 0 }),
        Just(Outcome::Failed { exit_code: Some(1), reason: "a".into() }),
        Just(Outcome::TimedOut),
        Just(Outcome::Cancelled { reason: "b".into() }),
    ]
}

fn create() -> impl Strategy<Value = JobCommand> {
    file_ids().prop_map(|file_ids| {
        JobCommand::Create(CreateJob {
            organization_id: Uuid::from_u128(7),
            job_configuration_id: Uuid::from_u128(8),
            name: "a".into(),
            command: vec!["true".into()],
            timeout_ms: 1,
            user_id: None,
            file_ids,
        })
    })
}

fn command() -> impl Strategy<Value = JobCommand> {
    prop_oneof![
        1 => create(),
        4 => file_ids().prop_map(|file_ids| JobCommand::ReplaceFiles { file_ids }),
        1 => Just(JobCommand::Queue),
        2 => machine().prop_map(|machine_id| JobCommand::Assign { machine_id, machine_type: Default::default() }),
        2 => machine().prop_map(|machine_id| JobCommand::Start { machine_id }),
        2 => (machine(), outcome(), file_ids()).prop_map(|(machine_id, outcome, output_file_ids)| {
            JobCommand::Finish { machine_id, outcome, output_file_ids }
        }),
        1 => Just(JobCommand::Cancel { reason: "c".into() }),
        1 => Just(JobCommand::Lose { reason: "d".into() }),
    ]
}

/// A complete lifecycle with random commands between its steps.
fn lifecycle() -> impl Strategy<Value = Vec<JobCommand>> {
    let step = |command_of_step: BoxedStrategy<JobCommand>| {
        (prop::collection::vec(command(), 0..2), command_of_step).prop_map(|(mut commands, last)| {
            commands.push(last);
            commands
        })
    };
    let first = Uuid::from_u128(1);
    let steps = (
        step(create().boxed()),
        step(file_ids().prop_map(|file_ids| JobCommand::ReplaceFiles { file_ids }).boxed()),
        step(Just(JobCommand::Queue).boxed()),
        step(Just(JobCommand::Assign { machine_id: first, machine_type: Default::default() }).boxed()),
        step(Just(JobCommand::Start { machine_id: first }).boxed()),
        prop::collection::vec(command(), 0..8),
    );
    steps.prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].concat())
}

fn is_end(event: &JobEvent) -> bool {
    use JobEvent::{JobCancelled, JobFailed, JobLost, JobSucceeded, JobTimedOut};
    matches!(event, JobSucceeded(_) | JobFailed(_) | JobTimedOut(_) | JobCancelled(_) | JobLost(_))
}

proptest! {
    #[test]
    fn job_starts_once_on_its_machine_and_ends_once(commands in lifecycle()) {
        let mut job = Job::default();
        let (mut assigned, mut started, mut ended) = (None, false, false);
        let (mut linked, mut expected) = (BTreeSet::new(), BTreeSet::new());
        for command in &commands {
            let Ok(events) = job.decide(command) else { continue };
            match command {
                JobCommand::Create(created) => expected = created.file_ids.iter().copied().collect(),
                JobCommand::ReplaceFiles { file_ids } => expected = file_ids.iter().copied().collect(),
                _ => {}
            }
            for event in &events {
                prop_assert!(!ended, "{:?} after the end", event);
                match event {
                    JobEvent::JobAssigned(event) => {
                        prop_assert_eq!(assigned.replace(event.machine_id), None, "assigned twice");
                    }
                    JobEvent::JobStarted(event) => {
                        prop_assert_eq!(assigned, Some(event.machine_id), "started on another machine");
                        prop_assert!(!std::mem::replace(&mut started, true), "started twice");
                    }
                    JobEvent::JobFilesLinked(event) if event.role == FileRole::Input => {
                        for file_id in &event.file_ids {
                            prop_assert!(linked.insert(*file_id), "linked twice");
                        }
                    }
                    JobEvent::JobFilesUnlinked(event) if event.role == FileRole::Input => {
                        for file_id in &event.file_ids {
                            prop_assert!(linked.remove(file_id), "unlinked without a link");
                        }
                    }
                    JobEvent::JobSucceeded(_) | JobEvent::JobTimedOut(_) => prop_assert!(started, "never started"),
                    _ => {}
                }
                ended |= is_end(event);
                job.evolve(event);
            }
            prop_assert_eq!(&linked, &expected, "the last accepted set");
            prop_assert_eq!(&linked, job.input_file_ids());
        }
    }

    #[test]
    fn repeated_command_emits_no_event(commands in lifecycle(), repeated in command()) {
        let mut job = Job::default();
        for command in &commands {
            for event in job.decide(command).unwrap_or_default() {
                job.evolve(&event);
            }
        }
        for event in job.decide(&repeated).unwrap_or_default() {
            job.evolve(&event);
        }
        // Right after it was accepted or rejected, the same command emits no event.
        prop_assert_eq!(job.decide(&repeated).unwrap_or_default(), vec![]);
    }
}
