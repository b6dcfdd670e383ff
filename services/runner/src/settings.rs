//! Settings and limits of a runner.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Args;
use epoch::retry::RetryPolicy;
use http_kit::Secrets;
use service_host::config::PeerArgs;

/// Name of the runner: in calls to other services, in traces and in the path of the working directory.
pub const NAME: &str = "runner";

/// Port of the runner's probes.
pub const PORT: u16 = 8085;

/// Command-line settings of a runner. Their names are unique among the settings of all services in one process.
#[derive(Debug, Clone, Args)]
pub struct RunnerArgs {
    /// Data directory; jobs run in its subdirectory runner/
    #[arg(long, env = "CATACLOUD_DATA_DIR", default_value = ".dev/data", value_name = "DIRECTORY")]
    pub runner_data_dir: PathBuf,

    /// Number of jobs that run concurrently
    #[arg(long, env = "CATACLOUD_RUNNER_SLOTS", default_value = "2", value_name = "JOBS")]
    pub runner_slots: NonZeroUsize,

    /// Machine type for prices and invoices, for example gpu-a100: 1 to 63 characters of a-z, 0-9, '.', '_' and '-',
    /// beginning with a letter or a digit
    #[arg(
        long,
        env = "CATACLOUD_MACHINE_TYPE",
        default_value = "default",
        value_name = "TYPE",
        value_parser = parse_machine_type
    )]
    pub machine_type: String,
}

/// Parses a machine type by the rules of the job service, so that a runner with an invalid type fails at start-up.
fn parse_machine_type(text: &str) -> Result<String, &'static str> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let allowed = |byte: u8| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
    match text.as_bytes() {
        [first, ..] if alphanumeric(*first) && text.len() <= 63 && text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err("must have 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit"),
    }
}

/// Settings of a runner.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Secret that authenticates calls between services.
    pub secrets: Secrets,
    /// Addresses of the job and file services.
    pub peers: PeerArgs,
    pub runner: RunnerArgs,
    pub limits: Limits,
}

/// Limits and retry policies of a runner.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest time that a claim waits for a job.
    pub claim_wait: Duration,
    /// Time between heartbeats; well below the lease of 15 seconds.
    pub heartbeat_every: Duration,
    /// Maximum bytes captured of standard output, and of standard error.
    pub captured_bytes: u64,
    /// Maximum number of output files of a job.
    pub output_files: usize,
    /// Longest wait for captured output after the exit: a process that left the process group may keep the pipe open.
    pub drain: Duration,
    /// Longest time that a stopping runner retries its last report.
    pub stop_report: Duration,
    /// Retries of calls to the job service.
    pub job_retries: RetryPolicy,
    /// Retries of calls to the file service. Limited, so that an unavailable file eventually fails the job.
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
    use super::parse_machine_type;

    #[test]
    fn machine_type_follows_the_rules_of_the_job_service() {
        for valid in ["default", "c7.large", "gpu_a100-80", &"x".repeat(63)] {
            assert_eq!(parse_machine_type(valid).as_deref(), Ok(valid));
        }
        for invalid in ["", "Large", "a b", "-a", "a\n", &"x".repeat(64)] {
            assert!(parse_machine_type(invalid).is_err(), "{invalid:?}");
        }
    }
}
