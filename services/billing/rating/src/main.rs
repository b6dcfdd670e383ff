//! The offline calculator `billing rate` as a program of its own, without database or broker.

use std::process::ExitCode;

use clap::Parser;
use rating::calculator::{self, RateArgs};

/// Says what events use and cost, without a database or a broker
#[derive(Debug, Parser)]
#[command(name = "rate", version)]
struct Rate {
    #[command(flatten)]
    args: RateArgs,
}

fn main() -> ExitCode {
    calculator::run(&Rate::parse().args)
}
