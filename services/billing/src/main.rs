//! The billing service as a process, and `billing rate`, which needs no service.

use std::{env, process::ExitCode};

use billing::{
    BillingService,
    rate::{self, RateArgs},
};
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    // It isn't one of the subcommands that every service has, and needs none of what they set up.
    let mut args = env::args_os();
    let program = args.next();
    if args.next().is_some_and(|subcommand| subcommand == "rate") {
        return rate::run(&RateArgs::parse_from(program.into_iter().chain(args)));
    }
    service_kit::cli::run::<BillingService>().await
}
