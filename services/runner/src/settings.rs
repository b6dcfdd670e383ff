//! What a runner must be told, and how patient it is.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Args;
use epoch::retry::RetryPolicy;
use http_kit::Secrets;
use service_host::config::PeerArgs;

/// The settings that only runners have. Their names fit beside those of every service in one process.
#[derive(Debug, Clone, Args)]
pub struct RunnerArgs {
    /// The directory below which jobs run, in runner/
    #[arg(long, env = "CATACLOUD_DATA_DIR", default_value = ".dev/data", value_name = "DIRECTORY")]
    pub runner_data_dir: PathBuf,

    /// How many jobs run at the same time
    #[arg(long, env = "CATACLOUD_RUNNER_SLOTS", default_value = "2", value_name = "JOBS")]
    pub runner_slots: NonZeroUsize,

    /// The type of this machine, as bills tell it: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit
    #[arg(
        long,
        env = "CATACLOUD_MACHINE_TYPE",
        default_value = "default",
        value_name = "TYPE",
        value_parser = machine_type
    )]
    pub machine_type: String,
}

/// The job service refuses others; a runner that isn't taken should say so when it starts.
fn machine_type(text: &str) -> Result<String, &'static str> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = |byte: u8| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
    match text.as_bytes() {
        [first, ..] if alphanumeric(*first) && text.len() <= 63 && text.bytes().all(fits) => Ok(text.to_owned()),
        _ => Err("must be 1 to 63 of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit"),
    }
}

/// What a runner must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The installation's secret.
    pub secrets: Secrets,
    /// Where the job and file services are.
    pub peers: PeerArgs,
    /// Where and how many.
    pub runner: RunnerArgs,
    /// How patient to be.
    pub limits: Limits,
}

/// How patient a runner is.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long the job service may wait for a job before it answers that there is none.
    pub claim_wait: Duration,
    /// The time between heartbeats; well below the lease of 15 seconds.
    pub heartbeat_every: Duration,
    /// The most bytes kept of standard output, and as many of standard error.
    pub captured_bytes: u64,
    /// The most files stored as a job's outputs.
    pub output_files: usize,
    /// How long a process that left the job's group may keep the job's standard output open.
    pub drain: Duration,
    /// How long a stopping runner tries to report what it ended.
    pub stop_report: Duration,
    /// How often and when to ask the job service again.
    pub job_retries: RetryPolicy,
    /// The same for the file service: a file that can't be moved must fail the job some day.
    pub file_retries: RetryPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        let (first, limit) = (Duration::from_millis(200), Duration::from_secs(5));
        Self {
            claim_wait: Duration::from_secs(10),
            heartbeat_every: Duration::from_secs(5),
            captured_bytes: 16 * 1024 * 1024,
            output_files: 1_000,
            drain: Duration::from_secs(5),
            stop_report: Duration::from_secs(5),
            job_retries: RetryPolicy { attempts: u32::MAX, first, limit },
            file_retries: RetryPolicy { attempts: 30, first, limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::machine_type;

    #[test]
    fn a_machine_type_that_the_job_service_refuses_is_refused_here() {
        for fine in ["default", "c7.large", "gpu_a100-80", &"x".repeat(63)] {
            assert_eq!(machine_type(fine).as_deref(), Ok(fine));
        }
        for odd in ["", "Large", "a b", "-a", "a\n", &"x".repeat(64)] {
            assert!(machine_type(odd).is_err(), "{odd:?}");
        }
    }
}
