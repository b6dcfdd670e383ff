//! The `job` binary.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::cli::run::<job::JobService>().await
}
