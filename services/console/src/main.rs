//! Runs the gateway as a separate process.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use console::{AdminArgs, Console, MAX_OPEN_REQUESTS, PORT, Settings, Upstreams};
use service_host::{
    buses::BusArgs,
    config::{ListenArgs, LogArgs, PeerArgs, SecretArgs, default_address},
    healthcheck::healthcheck,
    process::{Process, run_main},
};

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
    run_main(NAME, &cli.log, execute(cli.command)).await
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve(*args).await?,
        Command::Healthcheck(listen) => return Ok(healthcheck(listen.address(default_address(PORT))).await),
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let process = Process::new();
    let settings = Settings {
        secrets: args.secret.secrets,
        admin_key: args.admin.admin_key,
        upstreams: Upstreams::http(&args.peers)?,
        health: process.health.clone(),
        runs_on: runs_on(args.bus.resolve()?.label()),
        max_open_requests: MAX_OPEN_REQUESTS,
    };
    let address = args.listen.address(default_address(PORT));
    process.serve(address, Console::router(settings)).await?;
    Ok(())
}

/// Returns the rows of the status page. The page is public, so it names products and no addresses.
fn runs_on(bus: &str) -> Vec<(String, String)> {
    let rows = [("Deployment", "one process per service"), ("Bus", bus), ("Database", "PostgreSQL")];
    rows.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}
