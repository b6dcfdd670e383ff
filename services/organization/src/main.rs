//! The organization service as a process of its own.

use std::process::ExitCode;

use organization::OrganizationService;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<OrganizationService>().await
}
