//! The runner's binary. It has no tables and no bus, so of the subcommands every service has, only those that make sense.

use std::{process::ExitCode, time::Duration};

use axum::Router;
use clap::{Args, Parser, Subcommand};
use runner::{Limits, NAME, PORT, Runner, RunnerArgs, Settings};
use service_kit::{
    cli::{default_address, serve_until_stopped},
    config::{ListenArgs, LogArgs, PeerArgs, SecretArgs},
    health::Health,
    healthcheck::healthcheck,
    service::ServiceError,
    supervisor::Supervisor,
    telemetry,
};
use tokio_util::sync::CancellationToken;

/// How long running jobs may take to be ended and reported.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(version, about = "Runs Catacloud's jobs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Runs jobs, and serves its probes
    All(ProcessArgs),
    /// The same as `all`
    Serve(ProcessArgs),
    /// Asks the runner on this machine whether it is ready
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
    let args = match cli.command {
        Command::All(args) | Command::Serve(args) => args,
        Command::Healthcheck(listen) => return healthcheck(listen.address(default_address(PORT))).await,
    };
    let guard = match telemetry::init(NAME, &cli.log) {
        Ok(guard) => guard,
        Err(error) => return fail(&error),
    };
    let result = process(args).await;
    guard.shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn process(args: ProcessArgs) -> Result<(), ServiceError> {
    let address = args.listen.address(default_address(PORT));
    let settings =
        Settings { secrets: args.secret.secrets, peers: args.peers, runner: args.runner, limits: Limits::default() };
    let runner = Runner::new(settings).map_err(ServiceError::failed)?;
    let health = Health::new();
    runner.add_checks(&health);
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    supervisor.spawn(NAME, move |stop| {
        let runner = runner.clone();
        async move { runner.run(stop).await }
    });
    let served = serve_until_stopped(address, Router::new(), &health, stop).await;
    supervisor.shutdown(SHUTDOWN_LIMIT).await;
    served
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "stopped");
    eprintln!("{NAME}: {error}");
    ExitCode::FAILURE
}
