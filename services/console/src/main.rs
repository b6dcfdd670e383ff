//! The console in a process of its own.

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
#[command(version, about = "The public door of Catacloud")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the public door
    #[command(visible_alias = "all")]
    Serve(Box<ServeArgs>),
    /// Asks the console on this machine whether it is ready
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
    // Only to say on the page which bus the services use.
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
    process.serve(args.listen.address(default_address(PORT)), Console::router(settings)).await?;
    Ok(())
}

fn runs_on(bus: &str) -> Vec<(String, String)> {
    let rows = [("Deployment", "each service in a process of its own"), ("Bus", bus), ("Database", "PostgreSQL")];
    rows.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}
