//! The `catacloud` binary: all services in one process, as `./dev up` runs them.
//!
//! A small installation needs one process, not six, and a function call is faster than a bus. The services are the same as in
//! a deployment with separate processes and don't know the difference: event handlers also use the fast path, the gateway
//! calls the services' routers directly, and the services call each other over the loopback interface.

mod colocated;
mod demo;

use std::process::ExitCode;

use billing::BillingService;
use clap::{Parser, Subcommand};
use file::FileService;
use job::JobService;
use organization::OrganizationService;
use service_host::{
    config::{DatabaseArgs, ListenArgs, LogArgs, default_address},
    healthcheck::healthcheck,
    operations::{self, AnyOperation},
    process::run_main,
};

const NAME: &str = "catacloud";

#[derive(Parser)]
#[command(
    version,
    about = "Runs all services of Catacloud in one process, and operates their events and subscriptions"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Migrate the database, then run every service, the gateway and a job runner
    All(Box<colocated::ColocatedArgs>),
    /// Create or migrate the tables of all services
    Migrate(DatabaseArgs),
    /// Exit with 0 if the process on this machine is ready, else with 1
    Healthcheck(ListenArgs),
    /// Create demo data through the public API: an organization, a file and a finished job
    Demo(demo::DemoArgs),
    /// Operate the events and subscriptions of the organization service
    #[command(subcommand)]
    Organization(AnyOperation),
    /// Operate the events and subscriptions of the file service
    #[command(subcommand)]
    File(AnyOperation),
    /// Operate the events and subscriptions of the job service
    #[command(subcommand)]
    Job(AnyOperation),
    /// Operate the events and subscriptions of the billing service
    #[command(subcommand)]
    Billing(AnyOperation),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    run_main(NAME, &cli.log, execute(cli.command)).await
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::All(args) => colocated::run(*args).await?,
        Command::Migrate(database) => colocated::migrate(&database).await?,
        Command::Demo(args) => demo::run(args).await?,
        Command::Organization(operation) => return Ok(operations::run::<OrganizationService>(operation).await),
        Command::File(operation) => return Ok(operations::run::<FileService>(operation).await),
        Command::Job(operation) => return Ok(operations::run::<JobService>(operation).await),
        Command::Billing(operation) => return Ok(operations::run::<BillingService>(operation).await),
        Command::Healthcheck(listen) => return Ok(healthcheck(listen.address(default_address(console::PORT))).await),
    }
    Ok(ExitCode::SUCCESS)
}
