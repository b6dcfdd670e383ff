//! Runs jobs: takes them from the job service, stages their files, runs their commands as child processes, and stores
//! what they wrote.
//!
//! The problem: a command can hang, leave processes behind, write without end or be cancelled, and the job and file
//! services can be away in the middle of it; yet a run is paid for by the millisecond and must end once, truly reported.
//!
//! The invariant: a claimed job is heartbeaten until its end is acknowledged or refused; its processes are one group, and
//! the group is gone before the end is reported; the reported time is the process's own, without staging and uploading.
//! A runner keeps nothing: what it forgets (it was killed) the job service learns from the missing heartbeats.

mod capture;
mod execution;
mod file_client;
mod input_name;
mod interruption;
mod job_client;
mod outputs;
mod process_group;
mod program;
mod report;
mod retry;
mod runner;
mod settings;
mod staging;
mod stopwatch;
mod upload;
mod work_dir;

pub use self::{
    runner::{Runner, RunnerError},
    settings::{Limits, RunnerArgs, Settings},
};

/// The runner's name: in calls to other services, in traces and in the working directory's path.
pub const NAME: &str = "runner";

/// The port of the runner's probes.
pub const PORT: u16 = 8085;
