//! Billing's own subcommands.

use std::process::ExitCode;

use clap::Subcommand;
use rating::calculator::{self, RateArgs};
use service_host::cli::ExtraCommands;

/// Subcommands that only billing has.
#[derive(Debug, Subcommand)]
pub enum BillingCommand {
    /// Computes usage and costs from a file of events, without a database or a broker
    Rate(RateArgs),
}

impl ExtraCommands for BillingCommand {
    fn run(self) -> ExitCode {
        match self {
            Self::Rate(args) => calculator::run(&args),
        }
    }
}
