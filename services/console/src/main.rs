//! Runs the gateway as a separate process.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use console::{AdminArgs, Console, MAX_OPEN_REQUESTS, PORT, Settings, Upstreams};
use service_kit::{
    cli::{default_address, serve_until_stopped},
    config::{Bus, BusArgs, ListenArgs, LogArgs, PeerArgs, SecretArgs},
    health::Health,
    healthcheck::healthcheck,
    telemetry,
};
use tokio_util::sync::CancellationToken;

const NAME: &str = "console";

#[derive(Parser)]
#[command(version, about = "The public gateway of Catacloud: API, status page and API documentation")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API and the status page, on port 8080 by default
    #[command(visible_alias = "all")]
    Serve(Box<ServeArgs>),
    /// Checks whether the gateway on this machine is ready; exits with 0 if it is
    Healthcheck(ListenArgs),
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    peers: PeerArgs,
    // The gateway itself uses no bus; the status page shows the bus of the services.
    #[command(flatten)]
    bus: BusArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let guard = match telemetry::init(NAME, &cli.log) {
        Ok(guard) => guard,
        Err(error) => return fail(&error.into()),
    };
    let result = match cli.command {
        Command::Serve(args) => serve(*args).await,
        Command::Healthcheck(listen) => return healthcheck(listen.address(default_address(PORT))).await,
    };
    guard.shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let health = Health::new();
    let settings = Settings {
        secrets: args.secret.secrets,
        admin_key: args.admin.admin_key,
        upstreams: Upstreams::http(&args.peers)?,
        health: health.clone(),
        runs_on: runs_on(&args.bus.resolve()?),
        max_open_requests: MAX_OPEN_REQUESTS,
    };
    let address = args.listen.address(default_address(PORT));
    serve_until_stopped(address, Console::router(settings), &health, CancellationToken::new()).await?;
    Ok(())
}

/// Returns the rows of the status page. The page is public, so it names products and no addresses.
fn runs_on(bus: &Bus) -> Vec<(String, String)> {
    let bus = match bus {
        Bus::Kafka { .. } => "Apache Kafka",
        Bus::Rabbit { .. } => "RabbitMQ",
        Bus::Postgres => "PostgreSQL",
        Bus::Memory => "in memory of one process",
    };
    let rows = [("Deployment", "one process per service"), ("Bus", bus), ("Database", "PostgreSQL")];
    rows.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!(service = NAME, error = format!("{error:#}"), "stopped");
    eprintln!("{NAME}: {error:#}");
    ExitCode::FAILURE
}
