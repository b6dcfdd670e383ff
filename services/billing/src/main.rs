//! The binary of the billing service.

use std::process::ExitCode;

use billing::{BillingService, cli::BillingCommand};
use service_host::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run_with::<BillingService, BillingCommand>().await
}
