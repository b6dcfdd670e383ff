//! Runs the organization service as a separate process.

use std::process::ExitCode;

use organization::OrganizationService;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<OrganizationService>().await
}
