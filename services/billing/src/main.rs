//! The billing service as a process.

use std::process::ExitCode;

use billing::BillingService;

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::cli::run::<BillingService>().await
}
