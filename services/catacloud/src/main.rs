//! All of Catacloud's services in one process: the co-located deployment, and what `./dev up` runs.
//!
//! The problem: five processes are too much for a small installation, and a bus is slower than a function call.
//!
//! The invariant: nothing is wired differently from the deployment in many processes but the distance: handlers also have
//! events the local way, the door calls the services' routers directly, and the services reach each other over the loopback
//! interface. No service knows of it.

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
#[command(version, about = "All of Catacloud in one process")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Brings all tables up to date, then serves, projects, relays and runs jobs
    All(Box<colocated::ColocatedArgs>),
    /// Brings all tables up to date
    Migrate(DatabaseArgs),
    /// Asks the process on this machine whether it is ready
    Healthcheck(ListenArgs),
    /// Makes demo data through the public door
    Demo(demo::DemoArgs),
    /// Looks after the organization service's events and subscriptions
    #[command(subcommand)]
    Organization(AnyOperation),
    /// Looks after the file service's events and subscriptions
    #[command(subcommand)]
    File(AnyOperation),
    /// Looks after the job service's events and subscriptions
    #[command(subcommand)]
    Job(AnyOperation),
    /// Looks after the billing service's events and subscriptions
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
