//! The `runner` binary. A runner has no tables and no bus, so it lacks the subcommands for them.

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

/// Longest time to end and report running jobs at shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

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
    let args = match cli.command {
        Command::All(args) | Command::Serve(args) => args,
        Command::Healthcheck(listen) => return healthcheck(listen.address(default_address(PORT))).await,
    };
    let guard = match telemetry::init(NAME, &cli.log) {
        Ok(guard) => guard,
        Err(error) => return fail(&error),
    };
    let result = run(args).await;
    guard.shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(args: ProcessArgs) -> Result<(), ServiceError> {
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
