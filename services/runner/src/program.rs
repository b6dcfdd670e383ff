//! Runs the program of an attempt.
//!
//! A program may exceed its time limit, be interrupted, leave processes running, or print endlessly. [`run_program`] always
//! returns, with the instant at which the program ended. By then its process group is gone and its output is in files. The
//! program inherits no environment variable of the runner except `PATH`.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use epoch::Timestamp;
use tokio::{
    fs::File,
    process::{Child, Command},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    capture::capture_output,
    interruption::{Interruption, InterruptionSignals},
    process_group::ProcessGroup,
    settings::Limits,
    stopwatch::Stopwatch,
    work_dir::AttemptDir,
};

#[derive(Debug)]
pub(crate) enum ProgramExit {
    Exited(ExitStatus),
    TimedOut,
    Interrupted(Interruption),
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct ProgramResult {
    pub(crate) exit: ProgramExit,
    pub(crate) ended_at: Timestamp,
    /// Set when the captured output is incomplete.
    pub(crate) capture_error: Option<io::Error>,
}

/// A program to run.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) job_id: Uuid,
    pub(crate) command: &'a [String],
    pub(crate) timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("the job has no command")]
    NoCommand,
    #[error("program {program:?} was not found")]
    NotFound { program: String },
    #[error("program {program:?} could not be started: {source}")]
    NotStarted { program: String, source: io::Error },
    #[error("capture files could not be created: {0}")]
    CaptureFiles(io::Error),
    #[error("waiting for the program failed: {0}")]
    Wait(io::Error),
}

/// Runs `program` in `dir` until it exits, reaches its time limit, or is interrupted.
pub(crate) async fn run_program(
    program: &Program<'_>,
    dir: &AttemptDir,
    limits: &Limits,
    signals: &InterruptionSignals,
    clock: Stopwatch,
) -> Result<ProgramResult, RunError> {
    let stdout = File::create(dir.stdout()).await.map_err(RunError::CaptureFiles)?;
    let stderr = File::create(dir.stderr()).await.map_err(RunError::CaptureFiles)?;
    let (mut child, group) = spawn(program, dir)?;
    let mut captures = JoinSet::new();
    if let Some(from) = child.stdout.take() {
        captures.spawn(capture_output(from, stdout, limits.captured_bytes));
    }
    if let Some(from) = child.stderr.take() {
        captures.spawn(capture_output(from, stderr, limits.captured_bytes));
    }
    let exit = tokio::select! {
        biased;
        status = child.wait() => ProgramExit::Exited(status.map_err(RunError::Wait)?),
        () = tokio::time::sleep(program.timeout) => ProgramExit::TimedOut,
        interruption = signals.interrupted() => ProgramExit::Interrupted(interruption),
    };
    let exited_at = clock.now();
    // Also after a normal exit: remaining child processes would run unpaid and keep the output pipes open.
    group.kill().await;
    let ended_at = match exit {
        ProgramExit::Exited(_) => exited_at,
        // The program ran until the kill took effect.
        ProgramExit::TimedOut | ProgramExit::Interrupted(_) => {
            child.wait().await.map_err(RunError::Wait)?;
            clock.now()
        }
    };
    Ok(ProgramResult { exit, ended_at, capture_error: finish_captures(captures, limits.drain).await.err() })
}

fn spawn(program: &Program<'_>, dir: &AttemptDir) -> Result<(Child, ProcessGroup), RunError> {
    let (name, arguments) = program.command.split_first().ok_or(RunError::NoCommand)?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir(dir.path())
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", dir.path())
        .env("CATACLOUD_JOB_ID", program.job_id.to_string())
        .env("CATACLOUD_INPUTS", dir.inputs())
        .env("CATACLOUD_OUTPUTS", dir.outputs())
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => RunError::NotFound { program: name.clone() },
        _ => RunError::NotStarted { program: name.clone(), source },
    })?;
    // The process id is present until the child has been waited for.
    let leader = child.id().ok_or_else(|| RunError::Wait(io::ErrorKind::NotFound.into()))?;
    Ok((child, ProcessGroup::led_by(leader)))
}

/// Waits until the captures are complete, for up to `limit`: a process that left the group can keep a pipe open forever.
async fn finish_captures(mut captures: JoinSet<io::Result<()>>, limit: Duration) -> io::Result<()> {
    let completion = async {
        while let Some(captured) = captures.join_next().await {
            captured.map_err(io::Error::other)??;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, completion).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("a process that left the job's process group keeps the output open")),
    }
}
