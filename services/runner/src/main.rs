//! The `runner` binary. A runner has no tables and no bus, so it lacks the subcommands for them.

use std::process::ExitCode;

use axum::Router;
use clap::{Args, Parser, Subcommand};
use runner::{Limits, NAME, PORT, Runner, RunnerArgs, Settings};
use service_host::{
    config::{ListenArgs, LogArgs, PeerArgs, SecretArgs, default_address},
    healthcheck::healthcheck,
    process::{Process, run_main},
    service::ServiceError,
};

#[derive(Parser)]
#[command(version, about = "Runs the jobs of Catacloud on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run jobs and serve health probes and metrics
    All(ProcessArgs),
    /// Same as `all`
    Serve(ProcessArgs),
    /// Exit with 0 if the runner on this machine is ready, else with 1
    Healthcheck(ListenArgs),
}

#[derive(Args)]
struct ProcessArgs {
    #[command(flatten)]
    runner: RunnerArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    peers: PeerArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::All(args) | Command::Serve(args) => run_main(NAME, &cli.log, run(args)).await,
        Command::Healthcheck(listen) => healthcheck(listen.address(default_address(PORT))).await,
    }
}

async fn run(args: ProcessArgs) -> Result<ExitCode, ServiceError> {
    let address = args.listen.address(default_address(PORT));
    let settings =
        Settings { secrets: args.secret.secrets, peers: args.peers, runner: args.runner, limits: Limits::default() };
    let runner = Runner::new(settings).map_err(ServiceError::failed)?;
    let mut process = Process::new();
    runner.add_checks(&process.health);
    process.supervisor.spawn(NAME, move |stop| {
        let runner = runner.clone();
        async move { runner.run(stop).await }
    });
    process.serve(address, Router::new()).await?;
    Ok(ExitCode::SUCCESS)
}
