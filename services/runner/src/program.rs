//! Running a job's command.
//!
//! The problem: a command may run too long, be called off, leave processes behind or print without end.
//!
//! The invariant: [`run`] gives an end in every case, with the instant at which the program ended; by then its process
//! group is gone and what it printed is in files. The program sees no variable of the runner's but `PATH`.

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
    capture::capture,
    interruption::{Interruption, Interruptions},
    process_group::ProcessGroup,
    settings::Limits,
    stopwatch::Stopwatch,
    work_dir::JobDir,
};

/// How a program came to its end.
#[derive(Debug)]
pub(crate) enum Exit {
    Ended(ExitStatus),
    TimedOut,
    Interrupted(Interruption),
}

/// A program that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) at: Timestamp,
    /// Why what it printed isn't all there.
    pub(crate) capture_error: Option<io::Error>,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) job: Uuid,
    pub(crate) command: &'a [String],
    pub(crate) timeout: Duration,
}

/// Why there is no end to report of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("the job has no command")]
    NoCommand,
    #[error("program {program:?} was not found")]
    NotFound { program: String },
    #[error("program {program:?} can't be started: {source}")]
    NotStarted { program: String, source: io::Error },
    #[error("files for what it prints can't be made: {0}")]
    Captures(io::Error),
    #[error("program can't be waited for: {0}")]
    NotWatched(io::Error),
}

/// Runs `program` in `dir` until it ends, its time is over, or it is interrupted.
pub(crate) async fn run(
    program: &Program<'_>,
    dir: &JobDir,
    limits: &Limits,
    interruptions: &Interruptions,
    clock: Stopwatch,
) -> Result<Ran, RunError> {
    let stdout = File::create(dir.stdout()).await.map_err(RunError::Captures)?;
    let stderr = File::create(dir.stderr()).await.map_err(RunError::Captures)?;
    let (mut child, group) = spawn(program, dir)?;
    let mut captures = JoinSet::new();
    if let Some(from) = child.stdout.take() {
        captures.spawn(capture(from, stdout, limits.captured_bytes));
    }
    if let Some(from) = child.stderr.take() {
        captures.spawn(capture(from, stderr, limits.captured_bytes));
    }
    let ended = tokio::select! {
        biased;
        status = child.wait() => Ok((Exit::Ended(status.map_err(RunError::NotWatched)?), clock.now())),
        () = tokio::time::sleep(program.timeout) => Err(Exit::TimedOut),
        interruption = interruptions.any() => Err(Exit::Interrupted(interruption)),
    };
    // Also when the program ended by itself: what it left behind would go on unpaid, and hold its output open.
    group.kill().await;
    let (exit, at) = match ended {
        Ok(ended) => ended,
        Err(exit) => {
            child.wait().await.map_err(RunError::NotWatched)?;
            (exit, clock.now())
        }
    };
    Ok(Ran { exit, at, capture_error: finish(captures, limits.drain).await.err() })
}

fn spawn(program: &Program<'_>, dir: &JobDir) -> Result<(Child, ProcessGroup), RunError> {
    let (name, arguments) = program.command.split_first().ok_or(RunError::NoCommand)?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir(dir.path())
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", dir.path())
        .env("CATACLOUD_JOB_ID", program.job.to_string())
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
    // A child that nobody has waited for has its number.
    let leader = child.id().ok_or_else(|| RunError::NotWatched(io::ErrorKind::NotFound.into()))?;
    Ok((child, ProcessGroup::of(leader)))
}

/// Waits until all that was printed is in the files, but not for a process that left the group and prints on.
async fn finish(mut captures: JoinSet<io::Result<()>>, limit: Duration) -> io::Result<()> {
    let all = async {
        while let Some(captured) = captures.join_next().await {
            captured.map_err(io::Error::other)??;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, all).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("a process that left the job's process group holds it open")),
    }
}
