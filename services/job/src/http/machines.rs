//! The door for machines: claim a job, and say how it goes.
//!
//! The problem: a machine may hear no answer, hear it late, or be replaced while it works. The invariant: a machine can
//! repeat everything it says; what it says about a job that isn't its own any more changes nothing.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use epoch::{CommandContext, Timestamp, Version};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use service_kit::{ApiPath, Caller, Changed, Command, IntoProblem, Problem, Role};
use uuid::Uuid;

use super::{Api, not_found, owner};
use crate::{
    claims::{Claim, assign_oldest},
    domain::{
        job::{Job, JobCommand, Outcome},
        machine_type::MachineType,
        reported_instant,
    },
    leases,
    timeline::Moments,
};

/// The longest a claim may wait.
const MAX_WAIT_MS: u64 = 20_000;

/// A machine asks for a job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimBody {
    machine_id: Uuid,
    /// Machines that don't say are of the default one.
    #[serde(default, deserialize_with = "machine_type")]
    machine_type: MachineType,
    wait_ms: u64,
}

/// The job it gets.
#[derive(Debug, Serialize)]
struct ClaimedJob {
    job_id: Uuid,
    organization_id: Uuid,
    name: String,
    command: Vec<String>,
    timeout_ms: i64,
    input_file_ids: Vec<Uuid>,
    version: Version,
}

/// The job's program runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartedBody {
    machine_id: Uuid,
    #[serde(deserialize_with = "instant")]
    at: Timestamp,
}

/// The machine lives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeartbeatBody {
    machine_id: Uuid,
}

/// Whether the machine is to go on.
#[derive(Debug, Serialize)]
pub(crate) struct Heartbeat {
    r#continue: bool,
}

/// The job's program ended, or will never run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinishedBody {
    machine_id: Uuid,
    #[serde(deserialize_with = "instant")]
    at: Timestamp,
    outcome: OutcomeName,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    output_file_ids: Vec<Uuid>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn machine_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MachineType, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Gives the machine the job that has waited longest; waits a while for one.
pub(crate) async fn claim(State(api): State<Api>, command: Command<ClaimBody>) -> Result<Response, Problem> {
    command.caller.at_least(Role::Service)?;
    let ClaimBody { machine_id, machine_type, wait_ms } = command.body;
    if wait_ms > MAX_WAIT_MS {
        let detail = format!("wait_ms is {wait_ms}, it must be 0 to {MAX_WAIT_MS}");
        return Err(Problem::unprocessable(detail.clone()).at("/wait_ms", detail));
    }
    // Which job it will be, and so its version, isn't known to who asks.
    let context = CommandContext { expected: None, ..command.context };
    let claim = Claim { machine_id, machine_type, wait: Duration::from_millis(wait_ms), context };
    let Some((job_id, version)) = assign_oldest(&api.store, &api.jobs, &claim, &api.stop).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let job = api.jobs.load(job_id).await?.state;
    let claimed = ClaimedJob {
        job_id,
        organization_id: job.organization().unwrap_or_default(),
        name: job.name().to_owned(),
        command: job.command().to_vec(),
        timeout_ms: job.timeout_ms(),
        input_file_ids: job.input_file_ids().iter().copied().collect(),
        version,
    };
    Ok(Json(claimed).into_response())
}

/// The job's program runs: its time counts.
pub(crate) async fn started(
    State(api): State<Api>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<StartedBody>,
) -> Result<Changed, Problem> {
    let organization = organization(&api, &command.caller, job).await?;
    let StartedBody { machine_id, at } = command.body;
    let mut context = command.context.for_tenant(organization);
    let queued_at = Moments::of(&api.store, job).await?.queued_at;
    context.occurred_at =
        reported_instant::accept(at, Timestamp::now(), queued_at).map_err(IntoProblem::into_problem)?;
    Ok(api.jobs.execute(job, &JobCommand::Start { machine_id }, &context).await?.into())
}

/// The machine lives; tells it whether its work is still wanted.
pub(crate) async fn heartbeat(
    State(api): State<Api>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<HeartbeatBody>,
) -> Result<Json<Heartbeat>, Problem> {
    organization(&api, &command.caller, job).await?;
    let machine_id = command.body.machine_id;
    let wanted = api.jobs.load(job).await?.state.is_in_hands_of(machine_id);
    let goes_on = wanted && leases::renew(api.store.pool(), job, machine_id).await?;
    Ok(Json(Heartbeat { r#continue: goes_on }))
}

/// The job's program ended, or will never run.
pub(crate) async fn finished(
    State(api): State<Api>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<FinishedBody>,
) -> Result<Changed, Problem> {
    let organization = organization(&api, &command.caller, job).await?;
    let FinishedBody { machine_id, at, outcome, exit_code, reason, output_file_ids } = command.body;
    let outcome = outcome_of(outcome, exit_code, reason)?;
    let mut context = command.context.for_tenant(organization);
    let earliest = Moments::of(&api.store, job).await?.latest();
    context.occurred_at =
        reported_instant::accept(at, Timestamp::now(), earliest).map_err(IntoProblem::into_problem)?;
    let finish = JobCommand::Finish { machine_id, outcome, output_file_ids };
    let executed = api.jobs.execute(job, &finish, &context).await?;
    // If this fails the lease expires, and finds nothing to lose.
    leases::end(api.store.pool(), job, machine_id).await?;
    Ok(executed.into())
}

/// Whose the job is, for a caller who may know.
async fn organization(api: &Api, caller: &Caller, job: Uuid) -> Result<Uuid, Problem> {
    caller.at_least(Role::Service)?;
    owner(&api.jobs, job).await?.ok_or_else(|| not_found::<Job>(job))
}

fn outcome_of(name: OutcomeName, exit_code: Option<i32>, reason: Option<String>) -> Result<Outcome, Problem> {
    match (name, exit_code) {
        (OutcomeName::Succeeded, Some(exit_code)) => Ok(Outcome::Succeeded { exit_code }),
        (OutcomeName::Succeeded, None) => {
            let detail = "a program that succeeded has an exit code";
            Err(Problem::unprocessable(detail).at("/exit_code", detail))
        }
        (OutcomeName::Failed, exit_code) => {
            let default = || match exit_code {
                Some(exit_code) => format!("the program ended with exit code {exit_code}"),
                None => "the program ended without an exit code".to_owned(),
            };
            Ok(Outcome::Failed { exit_code, reason: reason.unwrap_or_else(default) })
        }
        (OutcomeName::TimedOut, _) => Ok(Outcome::TimedOut),
        (OutcomeName::Cancelled, _) => {
            Ok(Outcome::Cancelled { reason: reason.unwrap_or_else(|| "ended by its machine".to_owned()) })
        }
    }
}
