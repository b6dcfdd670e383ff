//! The job service, as a runner sees it.
//!
//! The problem: an answer can be lost, and a claim, a start or an end must count once.
//!
//! The invariant: each call has a key made of the job, its version when it was claimed, and the step, so a repeated call is
//! the same change, and a job that comes back to this runner later begins anew.

use std::time::Duration;

use epoch::retry::RetryPolicy;
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use service_kit::http_client::{Call, Peer, PeerError};
use uuid::Uuid;

use crate::{
    report::{Outcome, Report},
    retry::{pause, until_answered},
    settings::Limits,
    stopwatch::Stopwatch,
};

/// What an answer to a claim may take beyond the wait that was asked for.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);

/// A job that this runner is to run.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) job_id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) timeout_ms: u64,
    pub(crate) input_file_ids: Vec<Uuid>,
    version: u64,
}

impl Assignment {
    /// Tells this run of the job from others. Also a name for its directory.
    pub(crate) fn run_id(&self) -> String {
        format!("{}-{}", self.job_id, self.version)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn key(&self, step: &str) -> String {
        format!("{}-{step}", self.run_id())
    }
}

#[derive(Serialize)]
struct Claim<'a> {
    machine_id: Uuid,
    machine_type: &'a str,
    wait_ms: u64,
}

#[derive(Serialize)]
struct Started {
    machine_id: Uuid,
    at: String,
}

#[derive(Serialize)]
struct Heartbeat {
    machine_id: Uuid,
}

#[derive(Deserialize)]
struct HeartbeatAnswer {
    #[serde(rename = "continue")]
    goes_on: bool,
}

#[derive(Serialize)]
struct Finished<'a> {
    machine_id: Uuid,
    at: String,
    outcome: Outcome,
    exit_code: Option<i32>,
    reason: Option<&'a str>,
    output_file_ids: &'a [Uuid],
}

/// Which machine asks.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
}

/// The job service, asked by one machine.
#[derive(Debug, Clone)]
pub(crate) struct JobService {
    peer: Peer,
    machine: Machine,
    claim_wait: Duration,
    heartbeat_limit: Duration,
    retries: RetryPolicy,
}

impl JobService {
    pub(crate) fn new(peer: Peer, machine: Machine, limits: &Limits) -> Self {
        Self {
            peer,
            machine,
            claim_wait: limits.claim_wait,
            heartbeat_limit: limits.heartbeat_every,
            retries: limits.job_retries,
        }
    }

    /// Asks once for a job; `key` must be the same until there was an answer.
    pub(crate) async fn claim(&self, key: &str) -> Result<Option<Assignment>, PeerError> {
        let wait_ms = u64::try_from(self.claim_wait.as_millis()).unwrap_or(u64::MAX);
        let claim = Claim { machine_id: self.machine.id, machine_type: &self.machine.kind, wait_ms };
        let call = self.peer.post("/internal/v1/job/claims", key).json(&claim);
        let response = call.within(self.claim_wait + CLAIM_MARGIN).send().await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        read(response).await.map(Some)
    }

    /// Says that the job's program starts now, and gives the stopwatch that was started with it.
    ///
    /// While it is sure that no earlier call arrived, each call says the time anew: waiting for this service isn't run time.
    pub(crate) async fn started(&self, job: &Assignment) -> Result<Stopwatch, PeerError> {
        let mut clock = Stopwatch::start();
        let mut attempt = 0;
        let mut may_have_arrived = false;
        let mut failed = 0;
        loop {
            let started = Started { machine_id: self.machine.id, at: clock.started_at().to_string() };
            let key = job.key(&format!("started-{attempt}"));
            let error = match self.about(job, "started", &key).json(&started).send().await {
                Ok(_) => return Ok(clock),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            failed += 1;
            may_have_arrived |= !never_arrived(&error);
            pause(self.retries, failed, &error).await;
            if !may_have_arrived {
                clock = Stopwatch::start();
                attempt += 1;
            }
        }
    }

    /// Says that the job is being worked on, and asks whether that is still wanted.
    pub(crate) async fn heartbeat(&self, job: &Assignment) -> Result<bool, PeerError> {
        let heartbeat = Heartbeat { machine_id: self.machine.id };
        let call = self.about(job, "heartbeat", &Uuid::now_v7().to_string()).json(&heartbeat);
        let answer: HeartbeatAnswer = call.within(self.heartbeat_limit).receive().await?;
        Ok(answer.goes_on)
    }

    /// Says how the job ended.
    pub(crate) async fn finished(&self, job: &Assignment, report: &Report) -> Result<(), PeerError> {
        let finished = Finished {
            machine_id: self.machine.id,
            at: report.at.to_string(),
            outcome: report.outcome,
            exit_code: report.exit_code,
            reason: report.reason.as_deref(),
            output_file_ids: &report.output_file_ids,
        };
        let key = job.key("finished");
        until_answered(self.retries, || self.about(job, "finished", &key).json(&finished).send()).await?;
        Ok(())
    }

    fn about(&self, job: &Assignment, step: &str, key: &str) -> Call {
        let path = format!("/internal/v1/job/jobs/{}/{step}", job.job_id);
        self.peer.post(&path, key).acting_for(job.organization_id)
    }
}

/// Whether the call can't have been carried out.
fn never_arrived(error: &PeerError) -> bool {
    matches!(error, PeerError::NoAnswer { source, .. } if source.is_connect())
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, PeerError> {
    let url = response.url().clone();
    let body = response.bytes().await.map_err(|source| PeerError::NoAnswer { url: url.clone(), source })?;
    serde_json::from_slice(&body).map_err(|source| PeerError::Answer { url, source })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use axum::{Json, Router, http::StatusCode, routing::post};
    use epoch::{Timestamp, retry::RetryPolicy};
    use reqwest::Url;
    use serde_json::{Value, json};
    use service_kit::{Secrets, http_client::Peer};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::{Assignment, JobService, Machine};
    use crate::{NAME, settings::Limits};

    fn service(url: &str) -> JobService {
        let peer = Peer::new(NAME, Url::parse(url).unwrap(), Secrets::new("a secret for the tests").unwrap());
        let short = Duration::from_millis(10);
        let job_retries = RetryPolicy { attempts: u32::MAX, first: short, limit: short };
        let machine = Machine { id: Uuid::now_v7(), kind: "default".to_owned() };
        JobService::new(peer.unwrap(), machine, &Limits { job_retries, ..Limits::default() })
    }

    fn assignment() -> Assignment {
        serde_json::from_value(json!({
            "job_id": Uuid::now_v7(), "organization_id": Uuid::now_v7(), "name": "a", "command": ["true"],
            "timeout_ms": 1, "input_file_ids": [], "version": 3,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn waiting_for_the_job_service_is_no_run_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let service = service(&format!("http://{address}"));
        let job = assignment();
        // The first calls are refused by nobody at all; the next one arrives and gets no proper answer.
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let bodies = seen.clone();
        let answer = async move |Json(body): Json<Value>| {
            let mut seen = bodies.lock().unwrap();
            seen.push(body);
            if seen.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        };
        let asked_at = Timestamp::now();
        let started = tokio::spawn(async move { service.started(&job).await });
        // Time that passes, not a condition to wait for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let path = "/internal/v1/job/jobs/{job}/started";
        tokio::spawn(async move { axum::serve(listener, Router::new().route(path, post(answer))).await });
        let clock = started.await.unwrap().unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], seen[1], "what may have arrived is repeated as it was");
        assert_eq!(seen[1]["at"], clock.started_at().to_string());
        let not_counted = clock.started_at().as_millis() - asked_at.as_millis();
        assert!(not_counted >= 50, "of 100 ms only {not_counted} don't count");
    }
}
