//! A machine that takes jobs.
//!
//! The problem: the job service may be away, for long, and come back; a runner must neither end nor hammer it.
//!
//! The invariant: each slot has at most one job, and asks for the next one, again and again, until the runner is stopped.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use service_kit::{
    health::Health,
    http_client::{Peer, PeerError},
};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    NAME,
    execution::Execution,
    file_client::FileService,
    interruption::Interruptions,
    job_client::{Assignment, JobService, Machine},
    settings::Settings,
    work_dir::MachineDir,
};

/// Why a runner can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The HTTP client can't be set up.
    #[error(transparent)]
    Client(#[from] PeerError),
    /// There is no place for jobs' files.
    #[error("directory {path} can't be used: {source}", path = path.display())]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A bug.
    #[error("a slot of the runner ended: {0}")]
    Slot(#[from] JoinError),
}

/// A machine that takes jobs. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Runner {
    machine_id: Uuid,
    settings: Arc<Settings>,
    jobs: JobService,
    file_peer: Peer,
    /// Why the job service gave no answer the last time it was asked for a job.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Runner {
    /// A new machine.
    ///
    /// # Errors
    /// [`RunnerError::Client`] when the HTTP client can't be set up.
    pub fn new(settings: Settings) -> Result<Self, RunnerError> {
        let machine_id = Uuid::now_v7();
        let peer = |url| Peer::new(NAME, url, settings.secrets.clone());
        let machine = Machine { id: machine_id, kind: settings.runner.machine_type.clone() };
        let jobs = JobService::new(peer(settings.peers.job_url.clone())?, machine, &settings.limits);
        let file_peer = peer(settings.peers.file_url.clone())?;
        Ok(Self { machine_id, settings: Arc::new(settings), jobs, file_peer, trouble: Arc::default() })
    }

    /// Makes a process unready while this runner gets no answer from the job service.
    pub fn add_checks(&self, health: &Health) {
        let trouble = self.trouble.clone();
        health.add_check("job service", move || {
            let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { trouble.map_or(Ok(()), Err) }
        });
    }

    /// Runs jobs until `stop` is cancelled; then ends and reports those that run.
    ///
    /// # Errors
    /// [`RunnerError`] when there is no place for jobs' files, or by a bug.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), RunnerError> {
        let (data_dir, machine_id) = (self.settings.runner.runner_data_dir.clone(), self.machine_id);
        let unusable = |source| RunnerError::Directory { path: self.settings.runner.runner_data_dir.clone(), source };
        let dir = spawn_blocking(move || MachineDir::open(&data_dir, machine_id)).await?;
        let dir = Arc::new(dir.map_err(unusable)?);
        tracing::info!(machine = %machine_id, slots = self.settings.runner.runner_slots, "waiting for jobs");
        let mut slots = JoinSet::new();
        for _ in 0..self.settings.runner.runner_slots.get() {
            let (runner, dir, stop) = (self.clone(), dir.clone(), stop.clone());
            slots.spawn(async move { runner.slot(&dir, stop).await });
        }
        while let Some(ended) = slots.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn slot(&self, dir: &MachineDir, stop: CancellationToken) {
        let retries = self.settings.limits.job_retries;
        let mut failed = 0;
        let mut key = Uuid::now_v7();
        // A claim that is dropped when the runner stops may have got a job; its lease will end.
        while let Some(claimed) = stop.run_until_cancelled(self.jobs.claim(&key.to_string())).await {
            self.remember(claimed.as_ref().err());
            let error = match claimed {
                Ok(assignment) => {
                    (failed, key) = (0, Uuid::now_v7());
                    if let Some(job) = assignment {
                        self.execute(&job, dir, &stop).await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            // What was refused or not understood must not be repeated under the same key.
            if !error.is_transient() {
                key = Uuid::now_v7();
            }
            failed += 1;
            let wait = retries.wait(failed);
            tracing::warn!(%error, failed, wait_ms = wait.as_millis(), "no answer about jobs");
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn execute(&self, job: &Assignment, dir: &MachineDir, stop: &CancellationToken) {
        let execution = Execution {
            job,
            jobs: &self.jobs,
            files: FileService::new(self.file_peer.clone(), job.organization_id, job.job_id),
            limits: &self.settings.limits,
            interruptions: Interruptions::new(stop.clone()),
        };
        let span = tracing::info_span!("job", job = %job.job_id, organization = %job.organization_id, name = job.name);
        execution.run(dir).instrument(span).await;
    }

    fn remember(&self, error: Option<&PeerError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error.map(PeerError::to_string);
    }
}
