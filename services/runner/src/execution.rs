//! Executes one attempt of a job, from staging its inputs to reporting its outcome.
//!
//! Any step can fail, be interrupted, or find a service unavailable. Unless the job service rejects the start,
//! [`Execution::run`] reports exactly one outcome, and sends heartbeats until the report is accepted or rejected.

use epoch::Timestamp;
use reqwest::StatusCode;
use service_host::peer::PeerError;
use tokio::task::spawn_blocking;

use crate::{
    file_client::FileClient,
    interruption::InterruptionSignals,
    job_client::{Attempt, JobClient},
    outputs::{OutputFiles, find_outputs},
    program::{Program, ProgramExit, run_program},
    report::Report,
    settings::Limits,
    staging::stage_inputs,
    stopwatch::Stopwatch,
    upload::upload_output,
    work_dir::{AttemptDir, MachineDir},
};

#[derive(Debug)]
pub(crate) struct Execution<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) jobs: &'a JobClient,
    pub(crate) files: FileClient,
    pub(crate) limits: &'a Limits,
    pub(crate) signals: InterruptionSignals,
}

impl Execution<'_> {
    /// Runs the attempt in a directory below `machine_dir` and reports its outcome.
    pub(crate) async fn run(&self, machine_dir: &MachineDir) {
        tokio::select! {
            () = self.run_and_report(machine_dir) => {}
            () = self.send_heartbeats() => {}
        }
    }

    async fn run_and_report(&self, machine_dir: &MachineDir) {
        let report = match machine_dir.create_attempt_dir(&self.attempt.id()) {
            Ok(dir) => {
                let report = self.run_in(&dir).await;
                // `remove` logs its own errors.
                let _ = spawn_blocking(move || dir.remove()).await;
                report
            }
            Err(error) => {
                tracing::error!(%error, "creation of the attempt directory failed");
                Some(Report::failed(Timestamp::now(), "the machine could not create a directory for the job"))
            }
        };
        if let Some(report) = report {
            self.report(&report).await;
        }
    }

    /// Returns `None` when the job service rejected the start: this runner no longer holds the job and must not report.
    async fn run_in(&self, dir: &AttemptDir) -> Option<Report> {
        let inputs = dir.inputs();
        let staging = stage_inputs(&self.files, &self.attempt.input_file_ids, &inputs, self.limits.file_retries);
        match self.signals.run_until_interrupted(staging).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(Report::failed(Timestamp::now(), &error.to_string())),
            Err(interruption) => return Some(Report::interrupted(Timestamp::now(), interruption)),
        }
        let clock = match self.signals.run_until_interrupted(self.jobs.start(self.attempt)).await {
            Ok(Ok(clock)) => clock,
            Ok(Err(error)) => {
                tracing::warn!(%error, "start was rejected; abandoning the job");
                return None;
            }
            Err(interruption) => return Some(Report::interrupted(Timestamp::now(), interruption)),
        };
        Some(self.run_program(dir, clock).await)
    }

    async fn run_program(&self, dir: &AttemptDir, clock: Stopwatch) -> Report {
        let timeout = self.attempt.timeout();
        let program = Program { job_id: self.attempt.job_id, command: &self.attempt.command, timeout };
        let result = match run_program(&program, dir, self.limits, &self.signals, clock).await {
            Ok(result) => result,
            Err(error) => return Report::failed(clock.now(), &error.to_string()),
        };
        let mut report = Report::from_exit(result.ended_at, &result.exit, timeout);
        if let ProgramExit::Interrupted(_) = result.exit {
            return report;
        }
        if let Some(error) = result.capture_error {
            report.add_failure(&format!("captured output is incomplete: {error}"));
        }
        if let Err(interruption) = self.signals.run_until_interrupted(self.store_outputs(dir, &mut report)).await {
            return Report {
                output_file_ids: report.output_file_ids,
                ..Report::interrupted(result.ended_at, interruption)
            };
        }
        report
    }

    /// Uploads the output files. Files that cannot be stored become failures of the report.
    async fn store_outputs(&self, dir: &AttemptDir, report: &mut Report) {
        let OutputFiles { files, truncated } = match find_outputs(dir, self.limits.output_files) {
            Ok(outputs) => outputs,
            Err(error) => return report.add_failure(&format!("outputs could not be listed: {error}")),
        };
        if truncated {
            report.add_failure(&format!("too many output files; only {} were stored", files.len()));
        }
        for (index, output) in files.iter().enumerate() {
            let key = format!("{}-output-{index}", self.attempt.id());
            match upload_output(&self.files, output, &key, self.limits.file_retries).await {
                Ok(file) => report.output_file_ids.push(file),
                Err(error) => {
                    tracing::warn!(%error, "upload of an output failed");
                    report.add_failure(&error.to_string());
                }
            }
        }
    }

    async fn report(&self, report: &Report) {
        let deadline_after_stop = async {
            self.signals.stop.cancelled().await;
            tokio::time::sleep(self.limits.stop_report).await;
        };
        tokio::select! {
            response = self.jobs.finish(self.attempt, report) => match response {
                Ok(()) => tracing::info!(outcome = ?report.outcome, reason = report.reason, "job ended"),
                Err(error) => tracing::warn!(%error, outcome = ?report.outcome, "report was rejected"),
            },
            () = deadline_after_stop => {
                tracing::warn!(outcome = ?report.outcome, "stopping without an accepted report");
            }
        }
    }

    /// Sends heartbeats forever. Signals a revocation when the job service no longer wants the attempt.
    async fn send_heartbeats(&self) {
        loop {
            tokio::time::sleep(self.limits.heartbeat_every).await;
            let should_continue = match self.jobs.heartbeat(self.attempt).await {
                Ok(should_continue) => should_continue,
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed");
                    !is_revocation(&error)
                }
            };
            if !should_continue && !self.signals.revoked.is_cancelled() {
                tracing::info!("job was cancelled or its lease was revoked");
                self.signals.revoked.cancel();
            }
        }
    }
}

/// Returns whether the error means that this runner does not hold the job. Other errors reveal nothing about the job.
fn is_revocation(error: &PeerError) -> bool {
    matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE))
}
