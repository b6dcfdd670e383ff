//! The offline calculator as a program of its own, without a database or a broker.

use std::process::ExitCode;

use clap::Parser;
use rating::calculator::{self, RateArgs};

/// Calculates usage and an invoice from a document of events and plans, without a database or a broker
#[derive(Debug, Parser)]
#[command(name = "rate", version)]
struct Rate {
    #[command(flatten)]
    args: RateArgs,
}

fn main() -> ExitCode {
    calculator::run(&Rate::parse().args)
}
