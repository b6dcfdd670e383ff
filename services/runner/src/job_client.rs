//! Client of the job service.
//!
//! Responses can be lost, but a claim, a start and a finish must each count once. Every call therefore has an idempotency key
//! made of the job, its version at the claim, and the step. A repeated call is the same change, and a later attempt of the
//! same job has different keys.

use std::time::Duration;

use epoch::retry::RetryPolicy;
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use service_host::peer::{Call, Peer, PeerError};
use uuid::Uuid;

use crate::{
    report::{Outcome, Report},
    retry::{retry_transient, wait_before_retry},
    settings::Limits,
    stopwatch::Stopwatch,
};

/// Time for the response to a claim, in addition to the requested wait.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);

/// An attempt of a job, assigned to this runner.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) job_id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) timeout_ms: u64,
    pub(crate) input_file_ids: Vec<Uuid>,
    /// Version of the job at the claim.
    version: u64,
}

impl Attempt {
    /// Returns the id of the attempt, which also names its directory.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.job_id, self.version)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn idempotency_key(&self, step: &str) -> String {
        format!("{}-{step}", self.id())
    }
}

#[derive(Serialize)]
struct ClaimRequest<'a> {
    machine_id: Uuid,
    machine_type: &'a str,
    wait_ms: u64,
}

#[derive(Serialize)]
struct StartRequest {
    machine_id: Uuid,
    at: String,
}

#[derive(Serialize)]
struct HeartbeatRequest {
    machine_id: Uuid,
}

#[derive(Deserialize)]
struct HeartbeatResponse {
    #[serde(rename = "continue")]
    should_continue: bool,
}

#[derive(Serialize)]
struct FinishRequest<'a> {
    machine_id: Uuid,
    at: String,
    outcome: Outcome,
    exit_code: Option<i32>,
    reason: Option<&'a str>,
    output_file_ids: &'a [Uuid],
}

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: Uuid,
    pub(crate) machine_type: String,
}

/// Calls the job service on behalf of one machine.
#[derive(Debug, Clone)]
pub(crate) struct JobClient {
    peer: Peer,
    machine: Machine,
    claim_wait: Duration,
    heartbeat_timeout: Duration,
    retries: RetryPolicy,
}

impl JobClient {
    pub(crate) fn new(peer: Peer, machine: Machine, limits: &Limits) -> Self {
        Self {
            peer,
            machine,
            claim_wait: limits.claim_wait,
            heartbeat_timeout: limits.heartbeat_every,
            retries: limits.job_retries,
        }
    }

    /// Claims a job, without retries. Repeat a failed claim with the same `key`.
    pub(crate) async fn claim(&self, key: &str) -> Result<Option<Attempt>, PeerError> {
        let wait_ms = u64::try_from(self.claim_wait.as_millis()).unwrap_or(u64::MAX);
        let claim = ClaimRequest { machine_id: self.machine.id, machine_type: &self.machine.machine_type, wait_ms };
        let call = self.peer.post("/internal/v1/job/claims", key).json(&claim);
        let response = call.within(self.claim_wait + CLAIM_MARGIN).send().await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        read_json(response).await.map(Some)
    }

    /// Reports that the program starts now, and returns the stopwatch started at the reported instant.
    ///
    /// A retry reports a new instant as long as no earlier call can have arrived: an outage of the job service must not count
    /// as run time.
    pub(crate) async fn start(&self, attempt: &Attempt) -> Result<Stopwatch, PeerError> {
        let mut clock = Stopwatch::start();
        let mut restarts = 0;
        let mut may_have_arrived = false;
        let mut failed = 0;
        loop {
            let start = StartRequest { machine_id: self.machine.id, at: clock.started_at().to_string() };
            let key = attempt.idempotency_key(&format!("started-{restarts}"));
            let error = match self.job_call(attempt, "started", &key).json(&start).send().await {
                Ok(_) => return Ok(clock),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            failed += 1;
            may_have_arrived |= !never_arrived(&error);
            wait_before_retry(self.retries, failed, &error).await;
            if !may_have_arrived {
                clock = Stopwatch::start();
                restarts += 1;
            }
        }
    }

    /// Renews the lease. Returns whether the runner should continue.
    pub(crate) async fn heartbeat(&self, attempt: &Attempt) -> Result<bool, PeerError> {
        let heartbeat = HeartbeatRequest { machine_id: self.machine.id };
        let call = self.job_call(attempt, "heartbeat", &Uuid::now_v7().to_string()).json(&heartbeat);
        let response: HeartbeatResponse = call.within(self.heartbeat_timeout).receive().await?;
        Ok(response.should_continue)
    }

    /// Reports the outcome of the attempt.
    pub(crate) async fn finish(&self, attempt: &Attempt, report: &Report) -> Result<(), PeerError> {
        let finish = FinishRequest {
            machine_id: self.machine.id,
            at: report.at.to_string(),
            outcome: report.outcome,
            exit_code: report.exit_code,
            reason: report.reason.as_deref(),
            output_file_ids: &report.output_file_ids,
        };
        let key = attempt.idempotency_key("finished");
        retry_transient(self.retries, || self.job_call(attempt, "finished", &key).json(&finish).send()).await?;
        Ok(())
    }

    fn job_call(&self, attempt: &Attempt, step: &str, key: &str) -> Call {
        let path = format!("/internal/v1/job/jobs/{}/{step}", attempt.job_id);
        self.peer.post(&path, key).acting_for(attempt.organization_id)
    }
}

/// Returns whether the call certainly did not reach the service.
fn never_arrived(error: &PeerError) -> bool {
    matches!(error, PeerError::NoResponse { source, .. } if source.is_connect())
}

async fn read_json<T: DeserializeOwned>(response: Response) -> Result<T, PeerError> {
    let url = response.url().clone();
    let body = response.bytes().await.map_err(|source| PeerError::NoResponse { url: url.clone(), source })?;
    serde_json::from_slice(&body).map_err(|source| PeerError::MalformedResponse { url, source })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use axum::{Json, Router, http::StatusCode, routing::post};
    use epoch::{Timestamp, retry::RetryPolicy};
    use http_kit::Secrets;
    use reqwest::Url;
    use serde_json::{Value, json};
    use service_host::peer::Peer;
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::{Attempt, JobClient, Machine};
    use crate::settings::{Limits, NAME};

    fn job_client(url: &str) -> JobClient {
        let peer = Peer::new(NAME, Url::parse(url).unwrap(), Secrets::new("a secret for the tests").unwrap());
        let short = Duration::from_millis(10);
        let job_retries = RetryPolicy { attempts: u32::MAX, first: short, limit: short };
        let machine = Machine { id: Uuid::now_v7(), machine_type: "default".to_owned() };
        JobClient::new(peer.unwrap(), machine, &Limits { job_retries, ..Limits::default() })
    }

    fn attempt() -> Attempt {
        serde_json::from_value(json!({
            "job_id": Uuid::now_v7(), "organization_id": Uuid::now_v7(), "name": "a", "command": ["true"],
            "timeout_ms": 1, "input_file_ids": [], "version": 3,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn outage_of_the_job_service_is_not_run_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = job_client(&format!("http://{address}"));
        let attempt = attempt();
        // No listener accepts the first calls; the next one arrives and gets a 503, the last one succeeds.
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let bodies = received.clone();
        let handler = async move |Json(body): Json<Value>| {
            let mut received = bodies.lock().unwrap();
            received.push(body);
            if received.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        };
        let called_at = Timestamp::now();
        let started = tokio::spawn(async move { client.start(&attempt).await });
        // The outage itself, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let path = "/internal/v1/job/jobs/{job}/started";
        tokio::spawn(async move { axum::serve(listener, Router::new().route(path, post(handler))).await });
        let clock = started.await.unwrap().unwrap();
        let received = received.lock().unwrap();
        assert_eq!(received.len(), 2);
        assert_eq!(received[0], received[1], "a call that may have arrived is repeated unchanged");
        assert_eq!(received[1]["at"], clock.started_at().to_string());
        let outage_ms = clock.started_at().as_millis() - called_at.as_millis();
        assert!(outage_ms >= 50, "of 100 ms only {outage_ms} are excluded from the run time");
    }
}
