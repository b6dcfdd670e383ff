//! Runs all services in one process.

use anyhow::{Context, Result};
use axum::Router;
use billing::BillingService;
use clap::Args;
use console::{AdminArgs, Console, MAX_OPEN_REQUESTS, Upstream, Upstreams};
use file::FileService;
use http_kit::server;
use job::JobService;
use organization::OrganizationService;
use runner::{Limits, Runner, RunnerArgs};
use service_host::{
    config::{DatabaseArgs, PeerArgs, ProcessArgs, default_address},
    process::{Process, ProcessContext, Roles, RunningService, migrate_when_ready},
    service::Service,
};
use tokio::net::TcpListener;

/// Settings of the process.
#[derive(Debug, Args)]
pub(crate) struct ColocatedArgs {
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    runner: RunnerArgs,
}

/// Runs all services, the gateway and a runner until SIGTERM or SIGINT.
pub(crate) async fn run(args: ColocatedArgs) -> Result<()> {
    let mut process = Process::new();
    // Services call each other on a random loopback port. Calls without the installation's secret are rejected.
    let internal_listener =
        TcpListener::bind(default_address(0)).await.context("bind on the loopback interface failed")?;
    let mut shared = ProcessContext::new(&args.process);
    shared.peers = peers_at(&internal_listener)?;

    let organization = process.start::<OrganizationService>(&shared, Roles::ALL).await?;
    let file = process.start::<FileService>(&shared, Roles::ALL).await?;
    let job = process.start::<JobService>(&shared, Roles::ALL).await?;
    let billing = process.start::<BillingService>(&shared, Roles::ALL).await?;

    let services = [&organization, &file, &job, &billing];
    let router = services.iter().fold(Router::new(), |router, service| router.merge(service.router.clone()));
    let internal_server =
        tokio::spawn(server::serve(internal_listener, server::finish(router), process.supervisor.token()));
    start_runner(&args, &shared, &mut process)?;

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
        health: process.health.clone(),
        runs_on: runs_on(shared.bus.resolve()?.label()),
        max_open_requests: MAX_OPEN_REQUESTS,
    });
    let address = args.process.listen.address(default_address(console::PORT));
    let served = process.serve(address, gateway).await;
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
    Ok(migrate_when_ready::<S>(&database.pool(S::NAME)?).await?)
}

fn start_runner(args: &ColocatedArgs, shared: &ProcessContext, process: &mut Process) -> Result<()> {
    let runner = Runner::new(runner::Settings {
        secrets: shared.secrets.clone(),
        peers: shared.peers.clone(),
        runner: args.runner.clone(),
        limits: Limits::default(),
    })?;
    runner.add_checks(&process.health);
    process.supervisor.spawn(runner::NAME, move |stop| {
        let runner = runner.clone();
        async move { runner.run(stop).await }
    });
    Ok(())
}

fn upstream(service: &RunningService) -> Upstream {
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

fn runs_on(bus: &str) -> Vec<(String, String)> {
    [("Deployment", "all services in one process"), ("Bus", bus)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}
