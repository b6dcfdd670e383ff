//! The job service as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<job::JobService>().await
}
