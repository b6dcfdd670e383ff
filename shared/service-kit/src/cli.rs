//! The subcommands that every service's binary has.
//!
//! The problem: operators should not have to learn each binary. The invariant: `serve`, `project`, `relay`, `all`, `migrate`,
//! `healthcheck`, `openapi` and the [operations](crate::operate) mean the same everywhere; each process that stays has its probes
//! and its metrics. What only one service can do is a subcommand beside these ([`More`]), so that its `--help` tells of it.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use axum::Router;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use epoch::{FastPath, memory::MemoryBus};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{BusArgs, DatabaseArgs, ListenArgs, LogArgs, PeerArgs, SecretArgs},
    health::Health,
    healthcheck::healthcheck,
    operate::{self, AnyOperation, Operation, RelayCommand},
    server,
    service::{Roles, Service, ServiceError, Shared, bring_up_to_date, start},
    supervisor::Supervisor,
    telemetry,
};

/// How long tasks may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Subcommands that only one service has.
pub trait More: Subcommand {
    /// Does it, without what the service's processes set up.
    fn run(self) -> ExitCode;
}

/// No more subcommands than every service has.
#[derive(Debug, Clone, Copy)]
enum NoMore {}

impl More for NoMore {
    fn run(self) -> ExitCode {
        match self {}
    }
}

impl FromArgMatches for NoMore {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Err(clap::Error::new(ErrorKind::InvalidSubcommand))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        match *self {}
    }
}

impl Subcommand for NoMore {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        command
    }

    fn has_subcommand(_: &str) -> bool {
        false
    }
}

#[derive(Parser)]
#[command(version, about = "A service of Catacloud")]
struct Cli<M: More> {
    #[command(subcommand)]
    command: Command<M>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command<M: More> {
    /// Serves HTTP
    Serve(ProcessArgs),
    /// Runs projections and sagas
    Project(ProcessArgs),
    /// Publishes events to the bus, or tells how far that is
    Relay {
        #[command(flatten)]
        process: Box<ProcessArgs>,
        #[command(subcommand)]
        command: Option<RelayCommand>,
    },
    /// Brings the tables up to date and does all three
    All(ProcessArgs),
    /// Brings the tables up to date
    Migrate(DatabaseArgs),
    /// Asks the service on this machine whether it is ready
    Healthcheck(ListenArgs),
    /// Prints the OpenAPI document of the service's routes
    Openapi(ProcessArgs),
    #[command(flatten)]
    Operate(Operation),
    #[command(flatten)]
    More(M),
}

/// What a process of a service needs.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The bus.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The installation's secret.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// The other services.
    #[command(flatten)]
    pub peers: PeerArgs,
}

impl ProcessArgs {
    /// What the services of this process share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared {
            database: self.database.clone(),
            bus: self.bus.clone(),
            peers: self.peers.clone(),
            secrets: self.secret.secrets.clone(),
            local: FastPath::new(),
            memory: MemoryBus::new(),
        }
    }
}

/// The `main` of a service's binary.
pub async fn run<S: Service>() -> ExitCode {
    parsed::<S, NoMore>(Cli::parse()).await
}

/// The same of a service that has subcommands of its own.
pub async fn run_with<S: Service, M: More>() -> ExitCode {
    parsed::<S, M>(Cli::parse()).await
}

async fn parsed<S: Service, M: More>(cli: Cli<M>) -> ExitCode {
    if let Command::More(more) = cli.command {
        return more.run();
    }
    let guard = match telemetry::init(S::NAME, &cli.log) {
        Ok(guard) => guard,
        Err(error) => return fail(S::NAME, &error),
    };
    let result = match cli.command {
        Command::More(more) => return more.run(),
        Command::Serve(args) => process::<S>(args, Roles { serve: true, project: false, relay: false }).await,
        Command::Project(args) => process::<S>(args, Roles { serve: false, project: true, relay: false }).await,
        Command::Relay { process: args, command: None } => {
            process::<S>(*args, Roles { serve: false, project: false, relay: true }).await
        }
        Command::Relay { process, command: Some(command) } => {
            return operate::run::<S>(AnyOperation::Relay { process, command }).await;
        }
        Command::Operate(operation) => return operate::run::<S>(AnyOperation::Operation(operation)).await,
        Command::All(args) => process::<S>(args, Roles::ALL).await,
        Command::Migrate(database) => match database.pool(S::NAME) {
            Ok(pool) => bring_up_to_date::<S>(&pool).await,
            Err(error) => Err(error.into()),
        },
        Command::Healthcheck(listen) => return healthcheck(listen.address(default_address(S::PORT))).await,
        Command::Openapi(args) => openapi::<S>(args).await,
    };
    guard.shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(S::NAME, &error),
    }
}

/// Where a service listens when nothing else is said.
#[must_use]
pub fn default_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn fail(name: &str, error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(service = name, %error, "stopped");
    eprintln!("{name}: {error}");
    ExitCode::FAILURE
}

async fn process<S: Service>(args: ProcessArgs, roles: Roles) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let health = Health::new();
    let running = start::<S>(&args.shared(), roles, &mut supervisor, &health).await?;
    let router = if roles.serve { running.router.clone() } else { Router::new() };
    let result = serve_until_stopped(args.listen.address(default_address(S::PORT)), router, &health, stop).await;
    supervisor.shutdown(SHUTDOWN_LIMIT).await;
    drop(running);
    result
}

async fn openapi<S: Service>(args: ProcessArgs) -> Result<(), ServiceError> {
    let mut supervisor = Supervisor::new(CancellationToken::new());
    let roles = Roles { serve: true, project: false, relay: false };
    let running = start::<S>(&args.shared(), roles, &mut supervisor, &Health::new()).await?;
    let document = running.openapi.to_pretty_json().map_err(ServiceError::failed)?;
    let mut stdout = io::stdout().lock();
    // Whoever reads this may have stopped reading.
    let written = writeln!(stdout, "{document}").and_then(|()| stdout.flush());
    written.map_err(|error| ServiceError::failed(format!("can't write the document: {error}")))
}

/// Serves `router` and the probes until a signal comes or `stop` is cancelled; then cancels `stop` and drains.
///
/// # Errors
/// When the address is taken or the listener fails.
pub async fn serve_until_stopped(
    address: SocketAddr,
    router: Router,
    health: &Health,
    stop: CancellationToken,
) -> Result<(), ServiceError> {
    let taken = |error| ServiceError::failed(format!("can't listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let metrics = telemetry::metrics_handle().map_err(ServiceError::failed)?;
    let router = server::finish(router).merge(health.router(metrics));
    let signalled = stop.clone();
    let signals = tokio::spawn(async move {
        match server::shutdown_signal().await {
            Ok(signal) => tracing::info!(signal, "stopping"),
            Err(error) => tracing::error!(%error, "stopping, since signals can't be heard"),
        }
        signalled.cancel();
    });
    tracing::info!(%address, "serving");
    let served = server::serve(listener, router, stop.clone()).await;
    stop.cancel();
    signals.abort();
    served.map_err(ServiceError::failed)
}
