//! The billing service over HTTP.
//!
//! Queries in the process omit authentication, the account, the plan's sharing rule and JSON. Here, the unchanged service listens on a
//! local socket. Operator requests open its accounts and assign a plan, and each query is a request with an organization's key.

use anyhow::{Context, Result};
use billing::BillingService;
use futures::{StreamExt, TryStreamExt, stream};
use http_kit::{Caller, Role, Secrets, server};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use service_host::{
    health::Health,
    peer::Peer,
    process::{Roles, RunningService, start},
    supervisor::Supervisor,
    telemetry,
    testkit::{SECRET, process_context},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The number of accounts that are opened concurrently.
const CONCURRENT_ACCOUNTS: usize = 8;

/// A running billing service and its client.
pub struct BillingServer {
    peer: Peer,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// Keeps the service's appender running.
    _running: RunningService,
}

#[derive(Serialize)]
struct Open {
    currency: &'static str,
    time_zone: &'static str,
}

#[derive(Serialize)]
struct Charge {
    meter: &'static str,
    unit: &'static str,
    model: &'static str,
    unit_price: &'static str,
}

#[derive(Serialize)]
struct Plan {
    name: &'static str,
    currency: &'static str,
    split: &'static str,
    charges: [Charge; 2],
}

#[derive(Serialize)]
struct Assign {
    plan: Uuid,
    plan_version: u32,
    from: &'static str,
}

#[derive(Deserialize)]
struct Created {
    id: Uuid,
}

/// The checked part of a usage response. The whole response is received.
#[derive(Deserialize)]
struct UsageResponse {
    storage: Storage,
    compute: Compute,
}

#[derive(Deserialize)]
struct Storage {
    days: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Compute {
    days: Vec<IgnoredAny>,
}

impl BillingServer {
    /// Starts the service on a database, and opens an account with a plan for each of these organizations.
    pub async fn start(database_url: &str, organizations: &[Uuid]) -> Result<Self> {
        // Metrics are part of the measured cost.
        telemetry::metrics_handle()?;
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let roles = Roles { serve: true, project: false, relay: false };
        let running =
            start::<BillingService>(&process_context(database_url), roles, &mut supervisor, &Health::new()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let serving = server::serve(listener, server::finish(running.router.clone()), stop.clone());
        let served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("billing server failed: {error}");
            }
        });
        let peer = Peer::new("bench", format!("http://{address}").parse()?, Secrets::new(SECRET)?)?;
        let billing = Self { peer, stop, served, _running: running };
        let plan = billing.plan().await?;
        // Constant idempotency keys: an account from an earlier run is kept.
        stream::iter(organizations)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENT_ACCOUNTS, |id| billing.account(*id, plan))
            .await?;
        Ok(billing)
    }

    async fn plan(&self) -> Result<Uuid> {
        let charge = |meter, unit, unit_price| Charge { meter, unit, model: "flat", unit_price };
        let charges = [charge("storage", "GB.h", "0.0001"), charge("compute", "s", "0.00005")];
        let plan = Plan { name: "Measured", currency: "EUR", split: "split", charges };
        let publish = self.peer.post("/api/v1/admin/plans", "bench-plan").as_caller(Caller::operator()).json(&plan);
        Ok(publish.receive::<Created>().await?.id)
    }

    async fn account(&self, organization: Uuid, plan: Uuid) -> Result<()> {
        let account = format!("/api/v1/admin/organizations/{organization}/account");
        let post = |path: &str, step: &str| {
            self.peer.post(path, &format!("bench-{step}-{organization}")).as_caller(Caller::operator())
        };
        let open = Open { currency: "EUR", time_zone: "Europe/Madrid" };
        post(&account, "open").json(&open).send().await.context("opening an account")?;
        let assign = Assign { plan, plan_version: 1, from: "2024-12-01T00:00:00Z" };
        post(&format!("{account}/plan"), "plan").json(&assign).send().await.context("assigning a plan")?;
        Ok(())
    }

    /// Requests the usage of a month by day, with its files, jobs and users, with an organization's key.
    pub async fn usage(&self, organization: Uuid, window: Window) -> Result<()> {
        let (from, to, as_of) = (window.period.start(), window.period.end(), window.as_of);
        let path = format!(
            "/api/v1/organizations/{organization}/usage?from={from}&to={to}&time_zone=Europe/Madrid&as_of={as_of}"
        );
        let caller = Caller::key(Uuid::nil(), organization, Role::Viewer);
        let UsageResponse { storage, compute } = self.peer.get(&path).as_caller(caller).receive().await?;
        anyhow::ensure!(storage.days.len() >= 28 && compute.days.len() == storage.days.len(), "missing days");
        Ok(())
    }

    /// Finishes open requests and stops the service.
    pub async fn close(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.served.await?)
    }
}
