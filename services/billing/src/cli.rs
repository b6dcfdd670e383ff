//! The commands of billing beside those of every service.

use std::process::ExitCode;

use clap::Subcommand;
use rating::calculator::{self, RateArgs};
use service_host::cli::ExtraCommands;

/// What only billing can do.
#[derive(Debug, Subcommand)]
pub enum BillingCommand {
    /// Says what events use and cost, without a database or a broker
    Rate(RateArgs),
}

impl ExtraCommands for BillingCommand {
    fn run(self) -> ExitCode {
        match self {
            Self::Rate(args) => calculator::run(&args),
        }
    }
}
