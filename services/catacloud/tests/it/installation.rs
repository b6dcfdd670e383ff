//! Processes of a test. They share an isolated environment and end with the test.

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

use crate::api_client::ApiClient;

pub(crate) const ADMIN_KEY: &str = "cadm_0123456789abcdef0123456789abcdef0123456789abcdef";
const SECRET: &str = "a secret of end-to-end tests";

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

    /// Sends SIGTERM and returns the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn end(&mut self) {
        // Errors are ignored: the process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the last 40 lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log_tail());
        }
    }
}

/// Environment of the processes of a test: directory, database and bus.
pub(crate) struct Environment {
    pub(crate) directory: TempDir,
    pub(crate) database_url: String,
    /// Address of Kafka. `None` selects the Postgres bus.
    pub(crate) kafka: Option<String>,
    /// Address of RabbitMQ. `Some` selects RabbitMQ as the bus.
    pub(crate) amqp: Option<String>,
    /// Prefix of topics and consumer groups; isolates the tests on one broker.
    pub(crate) namespace: String,
    processes: u32,
}

impl Environment {
    pub(crate) fn new(database_url: String, kafka: Option<String>) -> Self {
        let namespace = format!("test-{}", Uuid::now_v7().simple());
        Self { directory: TempDir::new().unwrap(), database_url, kafka, amqp: None, namespace, processes: 0 }
    }

    /// Starts a binary of the workspace.
    pub(crate) fn start(&mut self, binary: &str, arguments: &[&str], variables: &[(&str, String)]) -> Process {
        self.processes += 1;
        let log = self.directory.path().join(format!("{:02}-{binary}-{}.log", self.processes, arguments.join("-")));
        let file = File::create(&log).unwrap();
        let child = self
            .command(binary, variables)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Process { name: format!("{binary} {}", arguments.join(" ")), child, log }
    }

    /// Runs a binary of the workspace to completion; fails the test on a non-zero exit code.
    pub(crate) fn run(&self, binary: &str, arguments: &[&str]) {
        let output = self.output(binary, arguments);
        assert!(output.status.success(), "{binary} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a binary of the workspace to completion and returns its output.
    pub(crate) fn output(&self, binary: &str, arguments: &[&str]) -> Output {
        self.command(binary, &[]).env("CATACLOUD_LOG", "error").args(arguments).output().unwrap()
    }

    fn command(&self, binary: &str, variables: &[(&str, String)]) -> Command {
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
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
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

/// Returns the directory of the workspace's binaries.
fn binaries() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_catacloud")).parent().unwrap()
}

/// A running installation of Catacloud.
pub(crate) struct Installation {
    // Declared before the environment: processes must end before the directory with their logs is removed.
    pub(crate) processes: Vec<Process>,
    pub(crate) environment: Environment,
    pub(crate) api: ApiClient,
    /// Address of each process, with its probes and metrics.
    pub(crate) addresses: Vec<String>,
    database: Option<TestDatabase>,
}

impl Installation {
    /// Starts all services in one process, on a new database.
    pub(crate) async fn colocated() -> Self {
        let database = TestDatabase::create().await;
        let environment = Environment::new(database.url(), test_kafka());
        Self { database: Some(database), ..Self::colocated_in(environment).await }
    }

    /// Starts all services in one process, in a given environment.
    pub(crate) async fn colocated_in(mut environment: Environment) -> Self {
        let address = free_address();
        let process = environment.start("catacloud", &["all"], &[("CATACLOUD_LISTEN", address.clone())]);
        let installation = Self {
            environment,
            api: ApiClient::new(&address, ADMIN_KEY),
            addresses: vec![address],
            processes: vec![process],
            database: None,
        };
        installation.wait_until_ready().await;
        installation
    }

    /// Starts each service in its own process, on a new database.
    pub(crate) async fn separate() -> Self {
        let database = TestDatabase::create().await;
        let environment = Environment::new(database.url(), test_kafka());
        Self { database: Some(database), ..Self::separate_in(environment).await }
    }

    /// Starts each service in its own process, in a given environment.
    pub(crate) async fn separate_in(mut environment: Environment) -> Self {
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
            let mut variables: Vec<(&str, String)> =
                peers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            variables.push(("CATACLOUD_LISTEN", address.clone()));
            processes.push(environment.start(service, &["all"], &variables));
        }
        let api = ApiClient::new(addresses.last().unwrap(), ADMIN_KEY);
        let installation = Self { environment, api, addresses, processes, database: None };
        installation.wait_until_ready().await;
        installation
    }

    async fn wait_until_ready(&self) {
        let client = reqwest::Client::new();
        for address in &self.addresses {
            let url = format!("http://{address}/readyz");
            within(Duration::from_secs(60), &url, async || {
                client.get(&url).send().await.is_ok_and(|response| response.status().is_success()).then_some(())
            })
            .await;
        }
    }

    /// Stops all processes with SIGTERM and drops the database.
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

/// Returns the address of the test broker, or `None` when there is none.
pub(crate) fn test_kafka() -> Option<String> {
    std::env::var("EPOCH_TEST_KAFKA").ok().filter(|servers| !servers.is_empty())
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_ports())
}

/// Polls until `condition` returns a value; fails the test after `limit`.
pub(crate) async fn within<T>(limit: Duration, description: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "timed out after {limit:?} waiting for {description}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
