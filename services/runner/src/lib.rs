//! The runner: claims jobs from the job service, stages their input files, runs their programs as child processes, and
//! uploads their outputs.
//!
//! A program can hang, leave processes running, print endlessly or be cancelled, and other services can be unavailable
//! meanwhile. Customers pay for each millisecond of run time, so every attempt must end once, with a correct report:
//!
//! - A claimed job receives heartbeats until its report is accepted or rejected.
//! - The processes of an attempt form one group, which is gone before the report.
//! - The reported run time is that of the program, without staging and uploads.
//! - A runner persists nothing. After a crash, missing heartbeats make the job service mark its jobs as lost.

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
    settings::{Limits, NAME, PORT, RunnerArgs, Settings},
};
