//! The `job` binary.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<job::JobService>().await
}
