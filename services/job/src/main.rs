//! The job service as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::cli::run::<job::JobService>().await
}
