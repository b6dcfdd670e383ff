//! The runner: a machine with slots that claim and execute jobs.
//!
//! Each slot executes one job at a time and claims the next one until the runner stops. During an outage of the job service
//! the runner keeps running and retries its claims with growing waits.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use service_host::{
    health::Health,
    peer::{Peer, PeerError},
};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    execution::Execution,
    file_client::FileClient,
    interruption::InterruptionSignals,
    job_client::{Attempt, JobClient, Machine},
    settings::{NAME, Settings},
    work_dir::MachineDir,
};

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Setup of the HTTP client failed.
    #[error(transparent)]
    Client(#[from] PeerError),
    #[error("data directory {path} is not usable: {source}", path = path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// A task panicked; this is a bug.
    #[error("runner task failed: {0}")]
    Slot(#[from] JoinError),
}

/// A machine that executes jobs. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Runner {
    machine_id: Uuid,
    settings: Arc<Settings>,
    jobs: JobClient,
    file_peer: Peer,
    /// Error of the last claim; `None` after a successful one.
    claim_error: Arc<Mutex<Option<String>>>,
}

impl Runner {
    /// Creates a runner with a new machine id.
    ///
    /// # Errors
    /// [`RunnerError::Client`] when the setup of the HTTP client fails.
    pub fn new(settings: Settings) -> Result<Self, RunnerError> {
        let machine_id = Uuid::now_v7();
        let peer = |url| Peer::new(NAME, url, settings.secrets.clone());
        let machine = Machine { id: machine_id, machine_type: settings.runner.machine_type.clone() };
        let jobs = JobClient::new(peer(settings.peers.job_url.clone())?, machine, &settings.limits);
        let file_peer = peer(settings.peers.file_url.clone())?;
        Ok(Self { machine_id, settings: Arc::new(settings), jobs, file_peer, claim_error: Arc::default() })
    }

    /// Adds a readiness check that fails while claims fail.
    pub fn add_checks(&self, health: &Health) {
        let claim_error = self.claim_error.clone();
        health.add_check("job service", move || {
            let error = claim_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { error.map_or(Ok(()), Err) }
        });
    }

    /// Executes jobs until `stop` is cancelled, then ends running jobs and reports them as failed.
    ///
    /// # Errors
    /// [`RunnerError::Directory`] when the data directory is not usable.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), RunnerError> {
        let (data_dir, machine_id) = (self.settings.runner.runner_data_dir.clone(), self.machine_id);
        let unusable = |source| RunnerError::Directory { path: self.settings.runner.runner_data_dir.clone(), source };
        let dir = spawn_blocking(move || MachineDir::open(&data_dir, machine_id)).await?;
        let dir = Arc::new(dir.map_err(unusable)?);
        tracing::info!(machine = %machine_id, slots = self.settings.runner.runner_slots, "claiming jobs");
        let mut slots = JoinSet::new();
        for _ in 0..self.settings.runner.runner_slots.get() {
            let (runner, dir, stop) = (self.clone(), dir.clone(), stop.clone());
            slots.spawn(async move { runner.run_slot(&dir, stop).await });
        }
        while let Some(ended) = slots.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn run_slot(&self, dir: &MachineDir, stop: CancellationToken) {
        let retries = self.settings.limits.job_retries;
        let mut failed = 0;
        let mut key = Uuid::now_v7();
        // A claim that is dropped at a stop may have been assigned a job. Its lease expires, and the job counts as lost.
        while let Some(claimed) = stop.run_until_cancelled(self.jobs.claim(&key.to_string())).await {
            self.set_claim_error(claimed.as_ref().err());
            let error = match claimed {
                Ok(attempt) => {
                    (failed, key) = (0, Uuid::now_v7());
                    if let Some(attempt) = attempt {
                        self.execute(&attempt, dir, &stop).await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            // Only a transient failure may be repeated under the same key; a rejection is the final result of its key.
            if !error.is_transient() {
                key = Uuid::now_v7();
            }
            failed += 1;
            let wait = retries.wait(failed);
            tracing::warn!(%error, failed, wait_ms = wait.as_millis(), "claim failed; retrying");
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn execute(&self, attempt: &Attempt, dir: &MachineDir, stop: &CancellationToken) {
        let execution = Execution {
            attempt,
            jobs: &self.jobs,
            files: FileClient::new(self.file_peer.clone(), attempt.organization_id, attempt.job_id),
            limits: &self.settings.limits,
            signals: InterruptionSignals::new(stop.clone()),
        };
        let Attempt { job_id, organization_id, name, .. } = attempt;
        let span = tracing::info_span!("job", job = %job_id, organization = %organization_id, name);
        execution.run(dir).instrument(span).await;
    }

    fn set_claim_error(&self, error: Option<&PeerError>) {
        *self.claim_error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(PeerError::to_string);
    }
}
