//! The event bus of a process: its settings, its name and its client.
//!
//! To support another bus, add a variant to [`BusKind`] and [`BusConfig`], its settings to [`BusArgs`], and its client to
//! `BusOpener`.

use std::{convert::Infallible, fmt, fs, io, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use epoch::{bus::Bus, memory::MemoryBus};
use epoch_kafka::{KafkaBus, KafkaConfig};
use epoch_postgres::{PgBus, PgStore};
use epoch_rabbitmq::{RabbitBus, RabbitConfig};
use epoch_registry::{FileRegistry, HttpRegistry, RegistryError, SchemaRegistry};
use reqwest::Url;
use sqlx::migrate::MigrateError;
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Health, LiveFlag},
    supervisor::Supervisor,
};

/// How often the health of the Kafka client is checked.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// The kind of bus that carries events between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BusKind {
    /// Apache Kafka, or a server that speaks its protocol, such as Redpanda
    Kafka,
    /// RabbitMQ 3.10 or newer
    Rabbitmq,
    /// Tables in the PostgreSQL database of the services
    Postgres,
    /// The memory of this process: for all services in one process; events that were not delivered are lost when it stops
    Memory,
}

/// The chosen bus with its settings.
#[derive(Clone, PartialEq, Eq)]
pub enum BusConfig {
    Kafka {
        /// `host:port`, separated by commas.
        bootstrap_servers: String,
    },
    Rabbit {
        /// `amqp(s)://user:password@host:port/vhost`. Hidden in debug output.
        url: String,
        /// A PEM file with additional certificate authorities.
        ca_file: Option<PathBuf>,
    },
    Postgres,
    Memory,
}

impl BusConfig {
    /// Returns the name of the bus for people. It has no address: the start page of the console is public.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Kafka { .. } => "Apache Kafka",
            Self::Rabbit { .. } => "RabbitMQ",
            Self::Postgres => "PostgreSQL",
            Self::Memory => "process memory",
        }
    }
}

impl fmt::Debug for BusConfig {
    /// Omits the address of RabbitMQ, which may contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka { bootstrap_servers } => {
                formatter.debug_struct("Kafka").field("bootstrap_servers", bootstrap_servers).finish()
            }
            Self::Rabbit { .. } => formatter.debug_struct("Rabbit").finish_non_exhaustive(),
            Self::Postgres => formatter.write_str("Postgres"),
            Self::Memory => formatter.write_str("Memory"),
        }
    }
}

/// The location of the schema registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaRegistryLocation {
    /// Servers with Confluent's API, tried in order.
    Urls(Vec<String>),
    /// A directory that all clients of the bus share.
    Directory(PathBuf),
}

/// Contradictory or malformed settings of the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusConfigError {
    #[error("CATACLOUD_BUS is kafka, but KAFKA_BOOTSTRAP_SERVERS is not set")]
    KafkaWithoutServers,
    #[error("CATACLOUD_BUS is rabbitmq, but AMQP_URL is not set")]
    RabbitWithoutUrl,
    #[error("SCHEMA_REGISTRY_URL is invalid: {detail}")]
    SchemaRegistryUrl { detail: String },
}

/// A bus that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error(transparent)]
    Config(#[from] BusConfigError),
    #[error(transparent)]
    Kafka(#[from] epoch_kafka::Error),
    #[error(transparent)]
    Rabbit(#[from] epoch_rabbitmq::Error),
    #[error("failed to read AMQP_CA_FILE {}: {source}", path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("migration of the PostgreSQL bus failed for service {service}: {source}")]
    Postgres { service: &'static str, source: MigrateError },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The settings of the bus.
#[derive(Clone, Default, Args)]
pub struct BusArgs {
    /// The Kafka brokers, e.g. kafka-1:9092,kafka-2:9092
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,…")]
    pub kafka_bootstrap_servers: Option<String>,

    /// The RabbitMQ server, e.g. amqp://user:password@rabbitmq:5672, or amqps://user:password@rabbitmq:5671 for TLS
    #[arg(long, env = "AMQP_URL", value_name = "URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// A PEM file with certificate authorities to trust for amqps://…, in addition to the public ones, e.g. /etc/catacloud/ca.pem
    #[arg(long, env = "AMQP_CA_FILE", value_name = "FILE")]
    pub amqp_ca_file: Option<PathBuf>,

    /// The bus [default: kafka if KAFKA_BOOTSTRAP_SERVERS is set, else rabbitmq if AMQP_URL is set, else postgres]
    #[arg(long, env = "CATACLOUD_BUS", value_name = "BUS")]
    pub bus: Option<BusKind>,

    /// The prefix of topics, event types and consumer groups; installations that share a broker need different prefixes [default: catacloud]
    #[arg(long, env = "CATACLOUD_BUS_NAMESPACE", value_name = "NAME")]
    pub bus_namespace: Option<String>,

    /// The schema registry for events on Kafka or RabbitMQ: http(s)://… (several separated by commas) or file:///… for a
    /// directory. With a registry, events use Confluent's wire format [default: no registry, Avro single-object encoding]
    #[arg(long, env = "SCHEMA_REGISTRY_URL", hide_env_values = true, value_name = "URL,…")]
    pub schema_registry_url: Option<String>,
}

impl fmt::Debug for BusArgs {
    /// Omits the address of RabbitMQ, which may contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BusArgs")
            .field("kafka_bootstrap_servers", &self.kafka_bootstrap_servers)
            .field("bus", &self.bus)
            .field("bus_namespace", &self.bus_namespace)
            .finish_non_exhaustive()
    }
}

impl BusArgs {
    /// Returns the prefix of topics, event types and consumer groups.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.bus_namespace.as_deref().unwrap_or("catacloud")
    }

    /// Returns the location of the schema registry, or `None` when the setting is absent or empty.
    ///
    /// # Errors
    /// [`BusConfigError::SchemaRegistryUrl`] for an invalid URL.
    pub fn schema_registry(&self) -> Result<Option<SchemaRegistryLocation>, BusConfigError> {
        let invalid = |detail: &str| BusConfigError::SchemaRegistryUrl { detail: detail.to_owned() };
        let list = self.schema_registry_url.as_deref().unwrap_or_default();
        let mut urls = Vec::new();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            urls.push(Url::parse(text).map_err(|error| invalid(&error.to_string()))?);
        }
        match urls.as_slice() {
            [] => Ok(None),
            [directory] if directory.scheme() == "file" => {
                let path =
                    directory.to_file_path().map_err(|()| invalid("file:///… must be a directory of this machine"))?;
                Ok(Some(SchemaRegistryLocation::Directory(path)))
            }
            servers if servers.iter().all(|url| matches!(url.scheme(), "http" | "https")) => {
                Ok(Some(SchemaRegistryLocation::Urls(urls.iter().map(Url::to_string).collect())))
            }
            _ => Err(invalid("expected http(s)://…, or a single file:///…")),
        }
    }

    /// Returns the bus that these settings select. Empty addresses count as not set.
    ///
    /// # Errors
    /// [`BusConfigError::KafkaWithoutServers`] or [`BusConfigError::RabbitWithoutUrl`] when a bus is selected without its
    /// address.
    pub fn resolve(&self) -> Result<BusConfig, BusConfigError> {
        let non_empty = |value: &Option<String>| {
            let value = value.as_deref().map(str::trim).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        let kafka =
            non_empty(&self.kafka_bootstrap_servers).map(|bootstrap_servers| BusConfig::Kafka { bootstrap_servers });
        let ca_file = self.amqp_ca_file.clone().filter(|path| !path.as_os_str().is_empty());
        let rabbit = non_empty(&self.amqp_url).map(|url| BusConfig::Rabbit { url, ca_file });
        match self.bus {
            Some(BusKind::Kafka) => kafka.ok_or(BusConfigError::KafkaWithoutServers),
            Some(BusKind::Rabbitmq) => rabbit.ok_or(BusConfigError::RabbitWithoutUrl),
            Some(BusKind::Postgres) => Ok(BusConfig::Postgres),
            Some(BusKind::Memory) => Ok(BusConfig::Memory),
            None => Ok(kafka.or(rabbit).unwrap_or(BusConfig::Postgres)),
        }
    }
}

/// Opens the bus of one service.
pub(crate) struct BusOpener<'a> {
    pub(crate) service: &'static str,
    /// The schemas to register.
    pub(crate) schemas: Vec<&'static str>,
    pub(crate) args: &'a BusArgs,
    pub(crate) memory: &'a MemoryBus,
    pub(crate) store: &'a PgStore,
}

struct OpenBus {
    bus: Arc<dyn Bus>,
    /// The client whose health must be watched.
    kafka: Option<Arc<KafkaBus>>,
    /// Whether other processes have the same bus.
    is_shared: bool,
}

impl OpenBus {
    fn shared(bus: impl Bus + 'static) -> Self {
        Self { bus: Arc::new(bus), kafka: None, is_shared: true }
    }
}

impl BusOpener<'_> {
    /// Opens the bus for a process of the service. Spawns a task that reports a stuck client to `health`.
    pub(crate) async fn open(&self, health: &Health, supervisor: &mut Supervisor) -> Result<Arc<dyn Bus>, BusError> {
        let OpenBus { bus, kafka, .. } = self.connect().await?;
        if let Some(kafka) = kafka {
            let flag = health.add_flag(format!("{}-kafka", self.service));
            supervisor.spawn(format!("{}-kafka-health", self.service), move |stop| {
                watch(Arc::clone(&kafka), flag.clone(), stop)
            });
        }
        Ok(bus)
    }

    /// Opens the bus for an operation that runs next to the service's processes. Returns `None` for a memory bus, which
    /// belongs to another process.
    pub(crate) async fn open_for_operation(&self) -> Result<Option<Arc<dyn Bus>>, BusError> {
        let OpenBus { bus, is_shared, .. } = self.connect().await?;
        Ok(is_shared.then_some(bus))
    }

    async fn connect(&self) -> Result<OpenBus, BusError> {
        Ok(match self.args.resolve()? {
            BusConfig::Kafka { bootstrap_servers } => {
                let kafka = Arc::new(self.kafka(bootstrap_servers)?);
                OpenBus { bus: Arc::clone(&kafka) as Arc<dyn Bus>, kafka: Some(kafka), is_shared: true }
            }
            BusConfig::Rabbit { url, ca_file } => OpenBus::shared(self.rabbit(url, ca_file)?),
            BusConfig::Postgres => OpenBus::shared(self.postgres().await?),
            BusConfig::Memory => {
                let bus = Arc::new(self.memory.with_group_prefix(self.service));
                OpenBus { bus, kafka: None, is_shared: false }
            }
        })
    }

    fn kafka(&self, bootstrap_servers: String) -> Result<KafkaBus, BusError> {
        let config = KafkaConfig {
            namespace: self.args.namespace().to_owned(),
            group_prefix: self.group_prefix(),
            ..KafkaConfig::new(bootstrap_servers)
        };
        Ok(match self.args.schema_registry()? {
            None => KafkaBus::connect(config)?,
            Some(location) => KafkaBus::connect_with(config, open_registry(location)?, &self.schemas)?,
        })
    }

    fn rabbit(&self, url: String, ca_file: Option<PathBuf>) -> Result<RabbitBus, BusError> {
        let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| BusError::CaFile { path, source });
        let config = RabbitConfig {
            authorities: ca_file.map(read).transpose()?,
            namespace: self.args.namespace().to_owned(),
            group_prefix: self.group_prefix(),
            ..RabbitConfig::new(url)
        };
        Ok(match self.args.schema_registry()? {
            None => RabbitBus::new(config)?,
            Some(location) => RabbitBus::new_with(config, open_registry(location)?, &self.schemas)?,
        })
    }

    async fn postgres(&self) -> Result<PgBus, BusError> {
        let bus = PgBus::connect(self.store.pool().clone(), self.args.namespace(), self.service).await;
        bus.map_err(|source| BusError::Postgres { service: self.service, source })
    }

    fn group_prefix(&self) -> String {
        format!("{}.{}", self.args.namespace(), self.service)
    }
}

fn open_registry(location: SchemaRegistryLocation) -> Result<Arc<dyn SchemaRegistry>, RegistryError> {
    Ok(match location {
        SchemaRegistryLocation::Urls(urls) => Arc::new(HttpRegistry::new(&urls)?),
        SchemaRegistryLocation::Directory(path) => Arc::new(FileRegistry::open(path)?),
    })
}

/// Copies the health of the Kafka client to `flag`. The process must restart when a consumer is stuck for good.
async fn watch(bus: Arc<KafkaBus>, flag: LiveFlag, stop: CancellationToken) -> Result<(), Infallible> {
    while stop.run_until_cancelled(tokio::time::sleep(HEALTH_INTERVAL)).await.is_some() {
        match bus.healthy() {
            Ok(()) => flag.recover(),
            Err(unhealthy) => flag.fail(unhealthy.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BusArgs, BusConfig, BusConfigError, BusKind, SchemaRegistryLocation};

    #[test]
    fn bus_follows_from_the_settings() {
        let kafka = || Ok(BusConfig::Kafka { bootstrap_servers: "k:9092".into() });
        let rabbit = || Ok(BusConfig::Rabbit { url: "amqp://r".into(), ca_file: None });
        let cases = [
            (None, None, None, Ok(BusConfig::Postgres)),
            (Some("k:9092"), None, None, kafka()),
            (Some(" "), Some(""), None, Ok(BusConfig::Postgres)),
            (Some("k:9092"), None, Some(BusKind::Kafka), kafka()),
            (None, Some("amqp://r"), Some(BusKind::Kafka), Err(BusConfigError::KafkaWithoutServers)),
            (None, Some("amqp://r"), None, rabbit()),
            (Some("k:9092"), Some("amqp://r"), None, kafka()),
            (Some("k:9092"), Some("amqp://r"), Some(BusKind::Rabbitmq), rabbit()),
            (Some("k:9092"), None, Some(BusKind::Rabbitmq), Err(BusConfigError::RabbitWithoutUrl)),
            (Some("k:9092"), Some("amqp://r"), Some(BusKind::Postgres), Ok(BusConfig::Postgres)),
            (Some("k:9092"), None, Some(BusKind::Memory), Ok(BusConfig::Memory)),
        ];
        for (servers, url, bus, expected) in cases {
            let (kafka_bootstrap_servers, amqp_url) = (servers.map(str::to_owned), url.map(str::to_owned));
            let args = BusArgs { kafka_bootstrap_servers, amqp_url, bus, ..BusArgs::default() };
            assert_eq!(args.resolve(), expected, "{servers:?}, {url:?}, {bus:?}");
        }
    }

    #[test]
    fn registry_is_servers_or_a_directory() {
        let parse =
            |text: &str| BusArgs { schema_registry_url: Some(text.to_owned()), ..BusArgs::default() }.schema_registry();
        let urls =
            |urls: &[&str]| Ok(Some(SchemaRegistryLocation::Urls(urls.iter().map(|url| (*url).to_owned()).collect())));
        assert_eq!(BusArgs::default().schema_registry(), Ok(None));
        assert_eq!(parse(" "), Ok(None));
        assert_eq!(parse("http://registry:8081"), urls(&["http://registry:8081/"]));
        assert_eq!(parse("https://a/x, http://b:1"), urls(&["https://a/x", "http://b:1/"]));
        assert_eq!(parse("file:///srv/schemas"), Ok(Some(SchemaRegistryLocation::Directory("/srv/schemas".into()))));
        for invalid in ["registry", "ftp://registry", "file:///a,http://b", "file:///a,file:///b"] {
            assert!(matches!(parse(invalid), Err(BusConfigError::SchemaRegistryUrl { .. })), "{invalid}");
        }
    }

    #[test]
    fn debug_output_hides_passwords() {
        let args = BusArgs { amqp_url: Some("amqp://user:secret@r".to_owned()), ..BusArgs::default() };
        assert!(!format!("{args:?} {:?}", args.resolve()).contains("secret"));
    }
}
