//! Processes of a test: each in an environment of its own, all ended with it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use epoch::testkit::free_ports;
use epoch_postgres::testkit::TestDatabase;
use tempfile::TempDir;
use uuid::Uuid;

use crate::api_client::Door;

pub(crate) const ADMIN_KEY: &str = "cadm_0123456789abcdef0123456789abcdef0123456789abcdef";
const SECRET: &str = "a secret of end-to-end tests, not of anybody else";

/// A process that is killed when it is dropped.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of what it logged.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
    }
}

/// Where the processes of a test live.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
    pub(crate) database_url: String,
    /// Kafka's address; `None` where there is none, and the bus is in Postgres.
    pub(crate) kafka: Option<String>,
    /// RabbitMQ's address; then it is the bus.
    pub(crate) amqp: Option<String>,
    /// Begins topics and consumer groups, so that tests on one broker don't see each other.
    pub(crate) namespace: String,
    processes: u32,
}

impl Site {
    pub(crate) fn new(database_url: String, kafka: Option<String>) -> Self {
        let namespace = format!("test-{}", Uuid::now_v7().simple());
        Self { directory: TempDir::new().unwrap(), database_url, kafka, amqp: None, namespace, processes: 0 }
    }

    /// Starts one of the workspace's binaries.
    pub(crate) fn start(&mut self, binary: &str, arguments: &[&str], environment: &[(&str, String)]) -> Process {
        self.processes += 1;
        let log = self.directory.path().join(format!("{:02}-{binary}-{}.log", self.processes, arguments.join("-")));
        let file = File::create(&log).unwrap();
        let child = self
            .command(binary, environment)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Process { name: format!("{binary} {}", arguments.join(" ")), child, log }
    }

    /// Runs one of the workspace's binaries to its end.
    pub(crate) fn run(&self, binary: &str, arguments: &[&str]) {
        let output = self.ended(binary, arguments);
        assert!(output.status.success(), "{binary} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The same, however it ended.
    pub(crate) fn ended(&self, binary: &str, arguments: &[&str]) -> Output {
        self.command(binary, &[]).env("CATACLOUD_LOG", "error").args(arguments).output().unwrap()
    }

    fn command(&self, binary: &str, environment: &[(&str, String)]) -> Command {
        let path = binaries().join(binary);
        assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
        let mut command = Command::new(path);
        command
            .env("DATABASE_URL", &self.database_url)
            .env("CATACLOUD_BUS_NAMESPACE", &self.namespace)
            .env("CATACLOUD_SECRET", SECRET)
            .env("CATACLOUD_ADMIN_KEY", ADMIN_KEY)
            .env("CATACLOUD_DB_POOL", "8")
            .env("CATACLOUD_DATA_DIR", self.directory.path().join("data"))
            .env("CATACLOUD_LISTEN", "127.0.0.1:0")
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        command.env_remove("AMQP_URL");
        match &self.kafka {
            _ if self.amqp.is_some() => {
                command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env("CATACLOUD_BUS", "rabbitmq");
                command.env("AMQP_URL", self.amqp.as_deref().unwrap_or_default())
            }
            Some(servers) => command.env("KAFKA_BOOTSTRAP_SERVERS", servers).env("CATACLOUD_BUS", "kafka"),
            None => command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env("CATACLOUD_BUS", "postgres"),
        };
        command
    }
}

/// Where cargo puts the workspace's binaries.
fn binaries() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_catacloud")).parent().unwrap()
}

/// A running Catacloud on a database of its own.
pub(crate) struct Stack {
    // Before the site, whose directory has their logs.
    pub(crate) processes: Vec<Process>,
    pub(crate) site: Site,
    pub(crate) door: Door,
    /// Where each process has its probes and metrics.
    pub(crate) addresses: Vec<String>,
    database: Option<TestDatabase>,
}

impl Stack {
    /// All services in one process.
    pub(crate) async fn colocated() -> Self {
        let database = TestDatabase::create().await;
        let site = Site::new(database.url(), test_kafka());
        Self { database: Some(database), ..Self::colocated_at(site).await }
    }

    /// All services in one process, at a given place.
    pub(crate) async fn colocated_at(mut site: Site) -> Self {
        let address = free_address();
        let process = site.start("catacloud", &["all"], &[("CATACLOUD_LISTEN", address.clone())]);
        let stack = Self {
            site,
            door: Door::new(&address, ADMIN_KEY),
            addresses: vec![address],
            processes: vec![process],
            database: None,
        };
        stack.ready().await;
        stack
    }

    /// Each service in a process of its own, over the bus.
    pub(crate) async fn separate() -> Self {
        let database = TestDatabase::create().await;
        let site = Site::new(database.url(), test_kafka());
        Self { database: Some(database), ..Self::separate_at(site).await }
    }

    /// Each service in a process of its own, at a given place.
    pub(crate) async fn separate_at(mut site: Site) -> Self {
        let services = ["organization", "job", "file", "billing", "runner", "console"];
        let addresses: Vec<String> = services.iter().map(|_| free_address()).collect();
        let url = |service: &str| format!("CATACLOUD_{}_URL", service.to_uppercase());
        let peers: Vec<(String, String)> = services
            .iter()
            .zip(&addresses)
            .map(|(service, address)| (url(service), format!("http://{address}")))
            .collect();
        let mut processes = Vec::new();
        for (service, address) in services.iter().zip(&addresses) {
            let mut environment: Vec<(&str, String)> =
                peers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            environment.push(("CATACLOUD_LISTEN", address.clone()));
            processes.push(site.start(service, &["all"], &environment));
        }
        let door = Door::new(addresses.last().unwrap(), ADMIN_KEY);
        let stack = Self { site, door, addresses, processes, database: None };
        stack.ready().await;
        stack
    }

    async fn ready(&self) {
        let client = reqwest::Client::new();
        for address in &self.addresses {
            let url = format!("http://{address}/readyz");
            within(Duration::from_secs(60), &url, async || {
                client.get(&url).send().await.is_ok_and(|response| response.status().is_success()).then_some(())
            })
            .await;
        }
    }

    /// Ends all processes as an operator would, and drops the database.
    pub(crate) async fn close(mut self) {
        for process in self.processes.drain(..) {
            let (name, log) = (process.name.clone(), process.log.clone());
            let code = process.terminate();
            assert_eq!(code, Some(0), "{name}: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
        if let Some(database) = self.database.take() {
            database.drop().await;
        }
    }
}

/// The test broker, if there is one.
pub(crate) fn test_kafka() -> Option<String> {
    std::env::var("EPOCH_TEST_KAFKA").ok().filter(|servers| !servers.is_empty())
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_ports())
}

/// Asks until there is an answer.
pub(crate) async fn within<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
