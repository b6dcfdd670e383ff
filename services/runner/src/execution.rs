//! One claimed job, from its files to its report.
//!
//! The problem: any step can fail, be called off, or find a service away, and still exactly one end must be reported.
//!
//! The invariant: unless the job service refuses the start, every way through [`Execution::run`] ends in one report, and
//! heartbeats go on until that report is answered.

use epoch::Timestamp;
use reqwest::StatusCode;
use service_kit::http_client::PeerError;
use tokio::task::spawn_blocking;

use crate::{
    file_client::FileService,
    interruption::Interruptions,
    job_client::{Assignment, JobService},
    outputs::{self, Outputs},
    program::{self, Exit, Program},
    report::Report,
    settings::Limits,
    staging::stage,
    stopwatch::Stopwatch,
    upload::upload,
    work_dir::{JobDir, MachineDir},
};

/// A claimed job and what it takes to run it.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    pub(crate) job: &'a Assignment,
    pub(crate) jobs: &'a JobService,
    pub(crate) files: FileService,
    pub(crate) limits: &'a Limits,
    pub(crate) interruptions: Interruptions,
}

impl Execution<'_> {
    /// Runs the job in a directory below `machine_dir`, and reports how it ended.
    pub(crate) async fn run(&self, machine_dir: &MachineDir) {
        tokio::select! {
            () = self.run_and_report(machine_dir) => {}
            () = self.heartbeats() => {}
        }
    }

    async fn run_and_report(&self, machine_dir: &MachineDir) {
        let report = match machine_dir.job(&self.job.run_id()) {
            Ok(dir) => {
                let report = self.run_in(&dir).await;
                // It only logs what goes wrong.
                let _ = spawn_blocking(move || dir.remove()).await;
                report
            }
            Err(error) => {
                tracing::error!(%error, "a job's directory can't be made");
                Some(Report::failed(Timestamp::now(), "the machine has no place for the job's files"))
            }
        };
        if let Some(report) = report {
            self.report(&report).await;
        }
    }

    /// `None` when the job service refused the start: the job isn't this runner's, so it has nothing to say about its end.
    async fn run_in(&self, dir: &JobDir) -> Option<Report> {
        let inputs = dir.inputs();
        let staging = stage(&self.files, &self.job.input_file_ids, &inputs, self.limits.file_retries);
        match self.interruptions.unless(staging).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(Report::failed(Timestamp::now(), &error.to_string())),
            Err(interruption) => return Some(Report::interrupted(Timestamp::now(), interruption)),
        }
        let clock = match self.interruptions.unless(self.jobs.started(self.job)).await {
            Ok(Ok(clock)) => clock,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the start was refused; the job is left alone");
                return None;
            }
            Err(interruption) => return Some(Report::interrupted(Timestamp::now(), interruption)),
        };
        Some(self.run_program(dir, clock).await)
    }

    async fn run_program(&self, dir: &JobDir, clock: Stopwatch) -> Report {
        let timeout = self.job.timeout();
        let program = Program { job: self.job.job_id, command: &self.job.command, timeout };
        let ran = match program::run(&program, dir, self.limits, &self.interruptions, clock).await {
            Ok(ran) => ran,
            Err(error) => return Report::failed(clock.now(), &error.to_string()),
        };
        let mut report = Report::of(ran.at, &ran.exit, timeout);
        if let Exit::Interrupted(_) = ran.exit {
            return report;
        }
        if let Some(error) = ran.capture_error {
            report.also(&format!("what the program printed is not complete: {error}"));
        }
        if let Err(interruption) = self.interruptions.unless(self.store_outputs(dir, &mut report)).await {
            return Report { output_file_ids: report.output_file_ids, ..Report::interrupted(ran.at, interruption) };
        }
        report
    }

    /// Stores what the program wrote, as far as possible.
    async fn store_outputs(&self, dir: &JobDir, report: &mut Report) {
        let Outputs { files, too_many } = match outputs::find(dir, self.limits.output_files) {
            Ok(found) => found,
            Err(error) => return report.also(&format!("the outputs can't be listed: {error}")),
        };
        if too_many {
            report.also(&format!("of the outputs only {} were stored", files.len()));
        }
        for (index, output) in files.iter().enumerate() {
            let key = format!("{}-output-{index}", self.job.run_id());
            match upload(&self.files, output, &key, self.limits.file_retries).await {
                Ok(file) => report.output_file_ids.push(file),
                Err(error) => {
                    tracing::warn!(%error, "an output isn't stored");
                    report.also(&error.to_string());
                }
            }
        }
    }

    async fn report(&self, report: &Report) {
        let overdue = async {
            self.interruptions.stop.cancelled().await;
            tokio::time::sleep(self.limits.stop_report).await;
        };
        tokio::select! {
            answer = self.jobs.finished(self.job, report) => match answer {
                Ok(()) => tracing::info!(outcome = ?report.outcome, reason = report.reason, "job ended"),
                Err(error) => tracing::warn!(%error, outcome = ?report.outcome, "the job's end was refused"),
            },
            () = overdue => tracing::warn!(outcome = ?report.outcome, "the runner stops and couldn't report the job's end"),
        }
    }

    /// Never ends. What it learns is in the job's interruptions.
    async fn heartbeats(&self) {
        loop {
            tokio::time::sleep(self.limits.heartbeat_every).await;
            let wanted = match self.jobs.heartbeat(self.job).await {
                Ok(wanted) => wanted,
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed");
                    !is_unknown(&error)
                }
            };
            if !wanted && !self.interruptions.dismissed.is_cancelled() {
                tracing::info!("the job is not wanted any more");
                self.interruptions.dismissed.cancel();
            }
        }
    }
}

/// Whether the job service answered that there is no such job for this runner. Any other refusal says nothing about the job.
fn is_unknown(error: &PeerError) -> bool {
    matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE))
}
