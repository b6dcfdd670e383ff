//! The command line of a service's binary.
//!
//! Every service has the subcommands `serve`, `project`, `relay`, `all`, `migrate`, `healthcheck`, `openapi` and the
//! [operations]. A service adds its own subcommands with [`ExtraCommands`].

use std::{
    io::{self, Write},
    process::ExitCode,
};

use axum::Router;
use clap::{ArgMatches, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{DatabaseArgs, ListenArgs, LogArgs, ProcessArgs, default_address},
    healthcheck::healthcheck,
    operations::{self, AnyOperation, Operation, RelayCommand},
    process::{Process, ProcessContext, Roles, migrate_when_ready, run_main},
    service::{Service, ServiceError},
};

/// The subcommands of one service only.
pub trait ExtraCommands: Subcommand {
    /// Runs the subcommand, without the telemetry of the service's processes.
    fn run(self) -> ExitCode;
}

/// No additional subcommands.
#[derive(Debug, Clone, Copy)]
enum NoCommands {}

impl ExtraCommands for NoCommands {
    fn run(self) -> ExitCode {
        match self {}
    }
}

impl FromArgMatches for NoCommands {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Err(clap::Error::new(ErrorKind::InvalidSubcommand))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        match *self {}
    }
}

impl Subcommand for NoCommands {
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
struct Cli<E: ExtraCommands> {
    #[command(subcommand)]
    command: Command<E>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command<E: ExtraCommands> {
    #[command(flatten)]
    Service(Box<ServiceCommand>),
    #[command(flatten)]
    Extra(E),
}

#[derive(Subcommand)]
enum ServiceCommand {
    /// Serves HTTP
    Serve(ProcessArgs),
    /// Runs projections, sagas and background tasks
    Project(ProcessArgs),
    /// Publishes events to the bus, or inspects and rewinds the relay
    Relay {
        #[command(flatten)]
        process: Box<ProcessArgs>,
        #[command(subcommand)]
        command: Option<RelayCommand>,
    },
    /// Migrates the tables, then serves, projects and relays
    All(ProcessArgs),
    /// Migrates the tables to the version that this binary needs
    Migrate(DatabaseArgs),
    /// Checks that the service on this machine is ready
    Healthcheck(ListenArgs),
    /// Prints the OpenAPI document of the public routes
    Openapi(ProcessArgs),
    #[command(flatten)]
    Operation(Operation),
}

/// Runs a service's binary. Its `main` only calls this.
pub async fn run<S: Service>() -> ExitCode {
    run_command::<S, NoCommands>(Cli::parse()).await
}

/// Runs the binary of a service that has additional subcommands.
pub async fn run_with<S: Service, E: ExtraCommands>() -> ExitCode {
    run_command::<S, E>(Cli::parse()).await
}

async fn run_command<S: Service, E: ExtraCommands>(cli: Cli<E>) -> ExitCode {
    match cli.command {
        Command::Extra(command) => command.run(),
        Command::Service(command) => run_main(S::NAME, &cli.log, execute::<S>(*command)).await,
    }
}

async fn execute<S: Service>(command: ServiceCommand) -> Result<ExitCode, ServiceError> {
    match command {
        ServiceCommand::Serve(args) => run_process::<S>(args, Roles::SERVE).await?,
        ServiceCommand::Project(args) => run_process::<S>(args, Roles::PROJECT).await?,
        ServiceCommand::Relay { process, command: None } => run_process::<S>(*process, Roles::RELAY).await?,
        ServiceCommand::Relay { process, command: Some(command) } => {
            return Ok(operations::run::<S>(AnyOperation::Relay { process, command }).await);
        }
        ServiceCommand::Operation(operation) => {
            return Ok(operations::run::<S>(AnyOperation::Operation(operation)).await);
        }
        ServiceCommand::All(args) => run_process::<S>(args, Roles::ALL).await?,
        ServiceCommand::Migrate(database) => migrate_when_ready::<S>(&database.pool(S::NAME)?).await?,
        ServiceCommand::Healthcheck(listen) => return Ok(healthcheck(listen.address(default_address(S::PORT))).await),
        ServiceCommand::Openapi(args) => print_openapi::<S>(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_process<S: Service>(args: ProcessArgs, roles: Roles) -> Result<(), ServiceError> {
    let mut process = Process::new();
    let service = process.start::<S>(&ProcessContext::new(&args), roles).await?;
    let router = if roles.serve { service.router.clone() } else { Router::new() };
    process.serve(args.listen.address(default_address(S::PORT)), router).await
}

async fn print_openapi<S: Service>(args: ProcessArgs) -> Result<(), ServiceError> {
    let mut process = Process::new();
    let service = process.start::<S>(&ProcessContext::new(&args), Roles::SERVE).await?;
    let document = service.openapi.to_pretty_json().map_err(ServiceError::failed)?;
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{document}").and_then(|()| stdout.flush());
    written.map_err(|error| ServiceError::failed(format!("failed to print the OpenAPI document: {error}")))
}
