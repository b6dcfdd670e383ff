//! The tables say what the streams say, whichever way the events came and however often.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use contracts::job::{FileRole, JobEvent};
use epoch::{CommandContext, Envelope, Position, Repository, bus::Bus, store::Streamer};
use futures::TryStreamExt;
use job::domain::job::{CreateJob, Job, JobCommand, Outcome};
use uuid::Uuid;

use crate::support::Platform;

/// What can be read of a job: status, version, files.
type Seen = (String, i64, BTreeSet<(&'static str, Uuid)>);

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

/// A life that depends on `number` only.
fn life(number: usize, organization: Uuid) -> Vec<JobCommand> {
    let machine_id = Uuid::from_u128(7);
    let files = |count: usize| (0..count % 5).map(|index| file((number + index) % 6)).collect::<Vec<_>>();
    let outcome = match number % 4 {
        0 => Outcome::Succeeded { exit_code: 0 },
        1 => Outcome::Failed { exit_code: None, reason: "b".into() },
        2 => Outcome::TimedOut,
        _ => Outcome::Cancelled { reason: "c".into() },
    };
    let whole = vec![
        create(organization, files(number)),
        JobCommand::ReplaceFiles { file_ids: files(number + 2) },
        JobCommand::ReplaceFiles { file_ids: files(number * 3) },
        JobCommand::Queue,
        JobCommand::Assign { machine_id, machine_type: Default::default() },
        JobCommand::Start { machine_id },
        JobCommand::Finish { machine_id, outcome, output_file_ids: files(number + 1) },
    ];
    let length = 1 + number % whole.len();
    let mut life: Vec<_> = whole.into_iter().take(length).collect();
    match number % 9 {
        7 => life.push(JobCommand::Cancel { reason: "d".into() }),
        8 => life.push(JobCommand::Lose { reason: "e".into() }),
        _ => {}
    }
    life
}

async fn log(streamer: &impl Streamer) -> Vec<Arc<Envelope>> {
    streamer.stream_all(&["job"], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
}

fn folded(log: &[Arc<Envelope>]) -> BTreeMap<Uuid, Seen> {
    let mut jobs: BTreeMap<Uuid, Seen> = BTreeMap::new();
    for envelope in log {
        let (status, version, files) = jobs.entry(envelope.aggregate_id).or_default();
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

async fn projected(platform: &Platform) -> BTreeMap<Uuid, Seen> {
    let pool = &platform.service.pool;
    let rows: Vec<(Uuid, String, i64)> =
        sqlx::query_as("select id, status, version from jobs").fetch_all(pool).await.unwrap();
    let mut jobs: BTreeMap<Uuid, Seen> =
        rows.into_iter().map(|(id, status, version)| (id, (status, version, BTreeSet::new()))).collect();
    let files: Vec<(Uuid, String, Uuid)> =
        sqlx::query_as("select job_id, role, file_id from job_files").fetch_all(pool).await.unwrap();
    for (job, role, file) in files {
        let role = if role == "input" { "input" } else { "output" };
        jobs.get_mut(&job).unwrap().2.insert((role, file));
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_follow_streams_also_when_the_bus_delivers_twice() {
    let platform = Platform::start().await;
    let store = platform.elsewhere();
    let repository = Repository::<Job, _>::new(store.clone());
    let context = CommandContext::new().for_tenant(platform.organization);
    let ids: Vec<Uuid> = (0..63).map(|_| Uuid::now_v7()).collect();
    let lives = ids.iter().enumerate().map(|(number, id)| {
        let (repository, context) = (&repository, &context);
        let commands = life(number, platform.organization);
        async move {
            for command in commands {
                // Those that make no sense at their place are refused.
                let _ = repository.execute(*id, &command, context).await;
            }
        }
    });
    futures::future::join_all(lives).await;
    let events = log(&store).await;
    platform.service.shared.memory.publish(&events).await.unwrap();
    let mut backwards = events.clone();
    backwards.reverse();
    platform.service.shared.memory.publish(&backwards).await.unwrap();
    // Only the bus brings this one, behind all the others.
    let last = Uuid::now_v7();
    repository.create(last, &create(platform.organization, vec![]), &context).await.unwrap();
    let bring = async || {
        let rows: i64 = sqlx::query_scalar("select count(*) from jobs where id = $1")
            .bind(last)
            .fetch_one(&platform.service.pool)
            .await
            .unwrap();
        (rows == 1).then_some(())
    };
    platform.service.eventually(bring).await;
    let expected = folded(&log(&store).await);
    assert!(expected.values().any(|(status, ..)| status == "succeeded"));
    assert!(expected.values().any(|(_, _, files)| !files.is_empty()));
    platform.service.eventually(async || (projected(&platform).await == expected).then_some(())).await;
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&platform.service.pool).await.unwrap();
    assert_eq!(waiting, 0);
    platform.close().await;
}
