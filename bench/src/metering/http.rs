//! Billing, asked over HTTP.
//!
//! The problem: what an answer costs within the process leaves out who asks, the account, the plan that says how files are shared, and
//! JSON. The invariant: nothing of the service is replaced. Its router listens on a socket of this machine, its accounts are opened and
//! pinned to a plan by operators' requests, and a question is a request of an organization's key.

use anyhow::{Context, Result};
use billing::{BillingService, domain::span::Window};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use service_kit::{
    Caller, Role, Secrets,
    health::Health,
    http_client::Peer,
    server,
    service::{Roles, Running, start},
    supervisor::Supervisor,
    telemetry,
    testkit::{SECRET, shared},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many accounts are opened at a time.
const AT_A_TIME: usize = 8;

/// Billing's door.
pub struct Door {
    peer: Peer,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// Its appender ends with it.
    _running: Running,
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

/// What is looked at of an answer; all of it is received.
#[derive(Deserialize)]
struct Answer {
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

impl Door {
    /// The door of the service on a database, in which each of these organizations has an account and a plan.
    pub async fn open(database_url: &str, organizations: &[Uuid]) -> Result<Self> {
        // What is counted costs something, too.
        telemetry::metrics_handle()?;
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let roles = Roles { serve: true, project: false, relay: false };
        let running = start::<BillingService>(&shared(database_url), roles, &mut supervisor, &Health::new()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let serving = server::serve(listener, server::finish(running.router.clone()), stop.clone());
        let served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("the door: {error}");
            }
        });
        let peer = Peer::new("bench", format!("http://{address}").parse()?, Secrets::new(SECRET)?)?;
        let door = Self { peer, stop, served, _running: running };
        let plan = door.plan().await?;
        // The same keys in each run: an account that is there already stays as it is.
        stream::iter(organizations).map(Ok).try_for_each_concurrent(AT_A_TIME, |id| door.account(*id, plan)).await?;
        Ok(door)
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
        let post = |path: &str, what: &str| {
            self.peer.post(path, &format!("bench-{what}-{organization}")).as_caller(Caller::operator())
        };
        let open = Open { currency: "EUR", time_zone: "Europe/Madrid" };
        post(&account, "open").json(&open).send().await.context("opening an account")?;
        let assign = Assign { plan, plan_version: 1, from: "2024-12-01T00:00:00Z" };
        post(&format!("{account}/plan"), "plan").json(&assign).send().await.context("assigning a plan")?;
        Ok(())
    }

    /// A month by day, with its files, jobs and users, as an organization's key asks for it.
    pub async fn usage(&self, organization: Uuid, window: Window) -> Result<()> {
        let (from, to, as_of) = (window.period.start(), window.period.end(), window.as_of);
        let path = format!(
            "/api/v1/organizations/{organization}/usage?from={from}&to={to}&time_zone=Europe/Madrid&as_of={as_of}"
        );
        let caller = Caller::key(Uuid::nil(), organization, Role::Viewer);
        let Answer { storage, compute } = self.peer.get(&path).as_caller(caller).receive().await?;
        anyhow::ensure!(storage.days.len() >= 28 && compute.days.len() == storage.days.len(), "days");
        Ok(())
    }

    /// Answers what was asked, and ends.
    pub async fn close(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.served.await?)
    }
}
