//! Read models equal the event streams, regardless of the delivery source and of redeliveries.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use contracts::job::{FileRole, JobEvent};
use epoch::{CommandContext, Envelope, Position, Repository, bus::Bus, store::Streamer};
use futures::TryStreamExt;
use job::domain::job::{CreateJob, Job, JobCommand, Outcome};
use sqlx::Row;
use uuid::Uuid;

use crate::support::Platform;

/// Fields of a job that this test compares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct JobState {
    status: String,
    version: i64,
    files: BTreeSet<(&'static str, Uuid)>,
}

fn create(organization_id: Uuid, file_ids: Vec<Uuid>) -> JobCommand {
    JobCommand::Create(CreateJob {
        organization_id,
        job_configuration_id: Uuid::from_u128(1),
        name: "a".into(),
        command: vec!["true".into()],
        timeout_ms: 1,
        user_id: None,
        file_ids,
    })
}

fn file(number: usize) -> Uuid {
    Uuid::from_u128(1_000 + number as u128)
}

/// Returns a command sequence that depends on `number` only.
fn lifecycle(number: usize, organization: Uuid) -> Vec<JobCommand> {
    let machine_id = Uuid::from_u128(7);
    let files = |count: usize| (0..count % 5).map(|index| file((number + index) % 6)).collect::<Vec<_>>();
    let outcome = match number % 4 {
        0 => Outcome::Succeeded { exit_code: 0 },
        1 => Outcome::Failed { exit_code: None, reason: "b".into() },
        2 => Outcome::TimedOut,
        _ => Outcome::Cancelled { reason: "c".into() },
    };
    let steps = vec![
        create(organization, files(number)),
        JobCommand::ReplaceFiles { file_ids: files(number + 2) },
        JobCommand::ReplaceFiles { file_ids: files(number * 3) },
        JobCommand::Queue,
        JobCommand::Assign { machine_id, machine_type: Default::default() },
        JobCommand::Start { machine_id },
        JobCommand::Finish { machine_id, outcome, output_file_ids: files(number + 1) },
    ];
    let length = 1 + number % steps.len();
    let mut commands: Vec<_> = steps.into_iter().take(length).collect();
    match number % 9 {
        7 => commands.push(JobCommand::Cancel { reason: "d".into() }),
        8 => commands.push(JobCommand::Lose { reason: "e".into() }),
        _ => {}
    }
    commands
}

async fn read_log(streamer: &impl Streamer) -> Vec<Arc<Envelope>> {
    streamer.stream_all(&["job"], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
}

/// Computes the expected states from the events.
fn fold(log: &[Arc<Envelope>]) -> BTreeMap<Uuid, JobState> {
    let mut jobs: BTreeMap<Uuid, JobState> = BTreeMap::new();
    for envelope in log {
        let JobState { status, version, files } = jobs.entry(envelope.aggregate_id).or_default();
        *version = i64::try_from(envelope.version.get()).unwrap();
        let role = |role: FileRole| if role == FileRole::Input { "input" } else { "output" };
        let next = match envelope.decode::<JobEvent>().unwrap() {
            JobEvent::JobCreated(_) => "created",
            JobEvent::JobFilesLinked(event) => {
                files.extend(event.file_ids.iter().map(|id| (role(event.role), *id)));
                continue;
            }
            JobEvent::JobFilesUnlinked(event) => {
                files.retain(|(of, id)| *of != role(event.role) || !event.file_ids.contains(id));
                continue;
            }
            JobEvent::JobQueued(_) => "queued",
            JobEvent::JobAssigned(_) => "assigned",
            JobEvent::JobStarted(_) => "running",
            JobEvent::JobSucceeded(_) => "succeeded",
            JobEvent::JobFailed(_) => "failed",
            JobEvent::JobTimedOut(_) => "timed_out",
            JobEvent::JobCancelled(_) => "cancelled",
            JobEvent::JobLost(_) => "lost",
        };
        next.clone_into(status);
    }
    jobs
}

/// Reads the states from the read model.
async fn read_projected(platform: &Platform) -> BTreeMap<Uuid, JobState> {
    let pool = &platform.service.pool;
    let rows = sqlx::query("select id, status, version from jobs").fetch_all(pool).await.unwrap();
    let mut jobs: BTreeMap<Uuid, JobState> = rows
        .into_iter()
        .map(|row| {
            let state = JobState { status: row.get("status"), version: row.get("version"), files: BTreeSet::new() };
            (row.get("id"), state)
        })
        .collect();
    let links = sqlx::query("select job_id, role, file_id from job_files").fetch_all(pool).await.unwrap();
    for link in links {
        let role = if link.get::<&str, _>("role") == "input" { "input" } else { "output" };
        jobs.get_mut(&link.get("job_id")).unwrap().files.insert((role, link.get("file_id")));
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn read_model_equals_streams_after_redeliveries() {
    let platform = Platform::start().await;
    let store = platform.store_of_other_process();
    let repository = Repository::<Job, _>::new(store.clone());
    let context = CommandContext::new().for_tenant(platform.organization);
    let ids: Vec<Uuid> = (0..63).map(|_| Uuid::now_v7()).collect();
    let lives = ids.iter().enumerate().map(|(number, id)| {
        let (repository, context) = (&repository, &context);
        let commands = lifecycle(number, platform.organization);
        async move {
            for command in commands {
                // Commands that are invalid in the current phase are rejected.
                let _ = repository.execute(*id, &command, context).await;
            }
        }
    });
    futures::future::join_all(lives).await;
    let events = read_log(&store).await;
    platform.service.shared.memory.publish(&events).await.unwrap();
    let mut backwards = events.clone();
    backwards.reverse();
    platform.service.shared.memory.publish(&backwards).await.unwrap();
    // Only the bus delivers this job, after all others.
    let last = Uuid::now_v7();
    repository.create(last, &create(platform.organization, vec![]), &context).await.unwrap();
    let last_is_projected = async || {
        let rows: i64 = sqlx::query_scalar("select count(*) from jobs where id = $1")
            .bind(last)
            .fetch_one(&platform.service.pool)
            .await
            .unwrap();
        (rows == 1).then_some(())
    };
    platform.service.eventually(last_is_projected).await;
    let expected = fold(&read_log(&store).await);
    assert!(expected.values().any(|job| job.status == "succeeded"));
    assert!(expected.values().any(|job| !job.files.is_empty()));
    platform.service.eventually(async || (read_projected(&platform).await == expected).then_some(())).await;
    let dead_letters: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&platform.service.pool).await.unwrap();
    assert_eq!(dead_letters, 0);
    platform.close().await;
}
