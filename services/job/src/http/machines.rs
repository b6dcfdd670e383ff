//! Internal routes for machines: claim a job, report its start, heartbeats and end.
//!
//! A machine may lose a response, receive it late, or lose its job while it works. Every report can therefore be repeated,
//! and a report about a job that the machine no longer holds changes nothing.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use epoch::{CommandContext, Timestamp, Version};
use http_kit::{ApiPath, Caller, Command, CommandResponse, IntoProblem, Problem, Role};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use uuid::Uuid;

use super::{
    ownership::{find_owner, not_found},
    state::HttpState,
};
use crate::{
    claims::{Claim, assign_oldest},
    domain::{
        job::{Job, JobCommand, Outcome},
        machine_type::MachineType,
        reported_instant::validate_reported_instant,
    },
    leases,
    timeline::JobTimeline,
};

/// Longest wait of a claim for a job, in milliseconds.
const MAX_WAIT_MS: u64 = 20_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRequest {
    machine_id: Uuid,
    /// Older runners send no type; the default is `default`.
    #[serde(default, deserialize_with = "machine_type")]
    machine_type: MachineType,
    wait_ms: u64,
}

#[derive(Debug, Serialize)]
struct ClaimResponse {
    job_id: Uuid,
    organization_id: Uuid,
    name: String,
    command: Vec<String>,
    timeout_ms: i64,
    input_file_ids: Vec<Uuid>,
    version: Version,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRequest {
    machine_id: Uuid,
    #[serde(deserialize_with = "instant")]
    at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeartbeatRequest {
    machine_id: Uuid,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeartbeatResponse {
    r#continue: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinishRequest {
    machine_id: Uuid,
    #[serde(deserialize_with = "instant")]
    at: Timestamp,
    outcome: OutcomeKind,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    output_file_ids: Vec<Uuid>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeKind {
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

/// Assigns the job that has been queued longest to the machine. Returns 204 when no job was queued within `wait_ms`.
pub(super) async fn claim_job(
    State(state): State<HttpState>,
    command: Command<ClaimRequest>,
) -> Result<Response, Problem> {
    command.caller.at_least(Role::Service)?;
    let ClaimRequest { machine_id, machine_type, wait_ms } = command.body;
    if wait_ms > MAX_WAIT_MS {
        let detail = format!("wait_ms must be 0 to {MAX_WAIT_MS}, not {wait_ms}");
        return Err(Problem::unprocessable(detail.clone()).at("/wait_ms", detail));
    }
    // The caller cannot expect a version, because it does not know which job it will get.
    let context = CommandContext { expected: None, ..command.context };
    let claim = Claim { machine_id, machine_type, wait: Duration::from_millis(wait_ms), context };
    let Some((job_id, version)) = assign_oldest(&state.store, &state.jobs, &claim, &state.stop).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let job = state.jobs.load(job_id).await?.state;
    let response = ClaimResponse {
        job_id,
        organization_id: job.organization().unwrap_or_default(),
        name: job.name().to_owned(),
        command: job.command().to_vec(),
        timeout_ms: job.timeout_ms(),
        input_file_ids: job.input_file_ids().iter().copied().collect(),
        version,
    };
    Ok(Json(response).into_response())
}

/// Records the start of the job's program; run time accrues from the reported instant.
pub(super) async fn start_job(
    State(state): State<HttpState>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<StartRequest>,
) -> Result<CommandResponse, Problem> {
    let organization = require_job(&state, &command.caller, job).await?;
    let StartRequest { machine_id, at } = command.body;
    let mut context = command.context.for_tenant(organization);
    let queued_at = JobTimeline::load(&state.store, job).await?.queued_at;
    context.occurred_at =
        validate_reported_instant(at, Timestamp::now(), queued_at).map_err(IntoProblem::into_problem)?;
    Ok(state.jobs.execute(job, &JobCommand::Start { machine_id }, &context).await?.into())
}

/// Renews the machine's lease, and returns whether the machine should keep working on the job.
pub(super) async fn record_heartbeat(
    State(state): State<HttpState>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, Problem> {
    require_job(&state, &command.caller, job).await?;
    let machine_id = command.body.machine_id;
    let assigned = state.jobs.load(job).await?.state.is_assigned_to(machine_id);
    let renewed = assigned && leases::renew(state.store.pool(), job, machine_id).await?;
    Ok(Json(HeartbeatResponse { r#continue: renewed }))
}

/// Records the outcome of the run and releases the machine's lease.
pub(super) async fn finish_job(
    State(state): State<HttpState>,
    ApiPath(job): ApiPath<Uuid>,
    command: Command<FinishRequest>,
) -> Result<CommandResponse, Problem> {
    let organization = require_job(&state, &command.caller, job).await?;
    let FinishRequest { machine_id, at, outcome, exit_code, reason, output_file_ids } = command.body;
    let outcome = outcome_from(outcome, exit_code, reason)?;
    let mut context = command.context.for_tenant(organization);
    let earliest = JobTimeline::load(&state.store, job).await?.latest();
    context.occurred_at =
        validate_reported_instant(at, Timestamp::now(), earliest).map_err(IntoProblem::into_problem)?;
    let finish = JobCommand::Finish { machine_id, outcome, output_file_ids };
    let executed = state.jobs.execute(job, &finish, &context).await?;
    // If this fails the lease expires later; the expiry then finds the job ended and appends nothing.
    leases::release(state.store.pool(), job, machine_id).await?;
    Ok(executed.into())
}

/// Checks that the caller is a service and that the job exists. Returns the job's organization.
async fn require_job(state: &HttpState, caller: &Caller, job: Uuid) -> Result<Uuid, Problem> {
    caller.at_least(Role::Service)?;
    find_owner(&state.jobs, job).await?.ok_or_else(|| not_found::<Job>(job))
}

fn outcome_from(kind: OutcomeKind, exit_code: Option<i32>, reason: Option<String>) -> Result<Outcome, Problem> {
    match (kind, exit_code) {
        (OutcomeKind::Succeeded, Some(exit_code)) => Ok(Outcome::Succeeded { exit_code }),
        (OutcomeKind::Succeeded, None) => {
            let detail = "outcome succeeded requires an exit code";
            Err(Problem::unprocessable(detail).at("/exit_code", detail))
        }
        (OutcomeKind::Failed, exit_code) => {
            let default = || match exit_code {
                Some(exit_code) => format!("the program ended with exit code {exit_code}"),
                None => "the program ended without an exit code".to_owned(),
            };
            Ok(Outcome::Failed { exit_code, reason: reason.unwrap_or_else(default) })
        }
        (OutcomeKind::TimedOut, _) => Ok(Outcome::TimedOut),
        (OutcomeKind::Cancelled, _) => {
            Ok(Outcome::Cancelled { reason: reason.unwrap_or_else(|| "ended by its machine".to_owned()) })
        }
    }
}
