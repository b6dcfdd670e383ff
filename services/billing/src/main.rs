//! The billing service as a process, and `billing rate`, which needs no service.

use std::process::ExitCode;

use billing::BillingService;
use clap::Subcommand;
use rating::calculator::{self, RateArgs};
use service_kit::cli::{self, More};

/// What only billing can do.
#[derive(Debug, Subcommand)]
enum OfBilling {
    /// Says what events use and cost, without a database or a broker
    Rate(RateArgs),
}

impl More for OfBilling {
    fn run(self) -> ExitCode {
        match self {
            Self::Rate(args) => calculator::run(&args),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run_with::<BillingService, OfBilling>().await
}
