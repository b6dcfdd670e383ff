//! The billing service as a process, and `billing rate`, which needs no service.

use std::process::ExitCode;

use billing::{
    BillingService,
    rate::{self, RateArgs},
};
use clap::Subcommand;
use service_host::cli::{self, ExtraCommands};

/// What only billing can do.
#[derive(Debug, Subcommand)]
enum OfBilling {
    /// Says what events use and cost, without a database or a broker
    Rate(RateArgs),
}

impl ExtraCommands for OfBilling {
    fn run(self) -> ExitCode {
        match self {
            Self::Rate(args) => rate::run(&args),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run_with::<BillingService, OfBilling>().await
}
