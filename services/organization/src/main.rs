//! Runs the organization service as a separate process.

use std::process::ExitCode;

use organization::OrganizationService;

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::cli::run::<OrganizationService>().await
}
