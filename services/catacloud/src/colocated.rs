//! Runs all services in one process.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use billing::BillingService;
use clap::Args;
use console::{AdminArgs, Console, MAX_OPEN_REQUESTS, Upstream, Upstreams};
use file::FileService;
use job::JobService;
use organization::OrganizationService;
use runner::{Limits, Runner, RunnerArgs};
use service_kit::{
    cli::{self, default_address, serve_until_stopped},
    config::{Bus, DatabaseArgs, PeerArgs},
    health::Health,
    server,
    service::{Roles, Running, Service, Shared, bring_up_to_date, start},
    supervisor::Supervisor,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longest time for background tasks to end at shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Settings of the process.
#[derive(Debug, Args)]
pub(crate) struct ColocatedArgs {
    #[command(flatten)]
    process: cli::ProcessArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    runner: RunnerArgs,
}

/// Runs all services, the gateway and a runner until SIGTERM or SIGINT.
pub(crate) async fn run(args: ColocatedArgs) -> Result<()> {
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let health = Health::new();
    // Services call each other on a random loopback port. Calls without the installation's secret are rejected.
    let internal_listener =
        TcpListener::bind(default_address(0)).await.context("bind on the loopback interface failed")?;
    let mut shared = args.process.shared();
    shared.peers = peers_at(&internal_listener)?;

    let organization = start::<OrganizationService>(&shared, Roles::ALL, &mut supervisor, &health).await?;
    let file = start::<FileService>(&shared, Roles::ALL, &mut supervisor, &health).await?;
    let job = start::<JobService>(&shared, Roles::ALL, &mut supervisor, &health).await?;
    let billing = start::<BillingService>(&shared, Roles::ALL, &mut supervisor, &health).await?;

    let services = [&organization, &file, &job, &billing];
    let router = services.iter().fold(Router::new(), |router, service| router.merge(service.router.clone()));
    let internal_server = tokio::spawn(server::serve(internal_listener, server::finish(router), stop.clone()));
    start_runner(&args, &shared, &health, &mut supervisor)?;

    let gateway = Console::router(console::Settings {
        secrets: shared.secrets.clone(),
        admin_key: args.admin.admin_key.clone(),
        upstreams: Upstreams {
            organization: upstream(&organization),
            job: upstream(&job),
            file: upstream(&file),
            billing: upstream(&billing),
            runner: Upstream::local(Router::new(), utoipa::openapi::OpenApi::default()),
        },
        health: health.clone(),
        runs_on: runs_on(&shared)?,
        max_open_requests: MAX_OPEN_REQUESTS,
    });
    let address = args.process.listen.address(default_address(console::PORT));
    let served = serve_until_stopped(address, gateway, &health, stop).await;
    supervisor.shutdown(SHUTDOWN_LIMIT).await;
    internal_server.await.context("internal server failed")??;
    Ok(served?)
}

/// Applies the migrations of all services.
pub(crate) async fn migrate(database: &DatabaseArgs) -> Result<()> {
    migrate_service::<OrganizationService>(database).await?;
    migrate_service::<FileService>(database).await?;
    migrate_service::<JobService>(database).await?;
    migrate_service::<BillingService>(database).await
}

async fn migrate_service<S: Service>(database: &DatabaseArgs) -> Result<()> {
    Ok(bring_up_to_date::<S>(&database.pool(S::NAME)?).await?)
}

fn start_runner(args: &ColocatedArgs, shared: &Shared, health: &Health, supervisor: &mut Supervisor) -> Result<()> {
    let runner = Runner::new(runner::Settings {
        secrets: shared.secrets.clone(),
        peers: shared.peers.clone(),
        runner: args.runner.clone(),
        limits: Limits::default(),
    })?;
    runner.add_checks(health);
    supervisor.spawn(runner::NAME, move |stop| {
        let runner = runner.clone();
        async move { runner.run(stop).await }
    });
    Ok(())
}

fn upstream(service: &Running) -> Upstream {
    Upstream::local(service.router.clone(), service.openapi.clone())
}

fn peers_at(listener: &TcpListener) -> Result<PeerArgs> {
    let url: reqwest::Url = format!("http://{}", listener.local_addr()?).parse()?;
    Ok(PeerArgs {
        organization_url: url.clone(),
        job_url: url.clone(),
        file_url: url.clone(),
        billing_url: url.clone(),
        runner_url: url,
    })
}

fn runs_on(shared: &Shared) -> Result<Vec<(String, String)>> {
    let bus = match shared.bus.resolve()? {
        Bus::Kafka { bootstrap_servers } => format!("Kafka at {bootstrap_servers}"),
        // Without its address, which may contain a password.
        Bus::Rabbit { .. } => "RabbitMQ".to_owned(),
        Bus::Postgres => "Postgres tables".to_owned(),
        Bus::Memory => "in-process memory".to_owned(),
    };
    let row = |name: &str, value: String| (name.to_owned(), value);
    Ok(vec![row("Deployment", "all services in one process".to_owned()), row("Bus", bus)])
}
