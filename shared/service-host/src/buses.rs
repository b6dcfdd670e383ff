//! Which bus events travel on.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};
use reqwest::Url;

use super::ConfigError;

/// How events travel between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BusName {
    /// Apache Kafka, or what speaks its protocol
    Kafka,
    /// RabbitMQ 3.10 or newer
    Rabbitmq,
    /// Tables in the same PostgreSQL
    Postgres,
    /// This process's memory: all services in one process, and nothing survives it
    Memory,
}

/// Which bus, with what it needs.
#[derive(Clone, PartialEq, Eq)]
pub enum Bus {
    /// Kafka at these addresses.
    Kafka {
        /// `host:port`, separated by commas.
        bootstrap_servers: String,
    },
    /// RabbitMQ at this address.
    Rabbit {
        /// `amqp(s)://user:password@host:port/vhost`; it isn't shown.
        url: String,
        /// A file with certificates of authorities that may vouch for it.
        ca_file: Option<PathBuf>,
    },
    /// Tables in the same PostgreSQL.
    Postgres,
    /// This process's memory.
    Memory,
}

/// Where schemas get their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaRegistryPlace {
    /// Servers that speak Confluent's API, tried in turn.
    Urls(Vec<String>),
    /// A directory of schemas, the same for all who use the bus.
    Directory(PathBuf),
}

impl fmt::Debug for Bus {
    /// Without RabbitMQ's address: there may be a password in it.
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

/// Which bus events travel on.
#[derive(Clone, Default, Args)]
pub struct BusArgs {
    /// Kafka's addresses, as in host:9092,other:9092
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,…")]
    pub kafka_bootstrap_servers: Option<String>,

    /// RabbitMQ's address, as in amqp://user:password@host:5672, or amqps://user:password@host:5671 for TLS
    #[arg(long, env = "AMQP_URL", value_name = "URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// Certificates, in PEM, of authorities that may vouch for RabbitMQ at amqps://…, besides the public ones
    #[arg(long, env = "AMQP_CA_FILE", value_name = "FILE")]
    pub amqp_ca_file: Option<PathBuf>,

    /// The bus [default: kafka if its addresses are set, else rabbitmq if its address is, else postgres]
    #[arg(long, env = "CATACLOUD_BUS", value_name = "BUS")]
    pub bus: Option<BusName>,

    /// Begins topics, event types and consumer groups; installations that share a broker need different ones [default: catacloud]
    #[arg(long, env = "CATACLOUD_BUS_NAMESPACE", value_name = "NAME")]
    pub bus_namespace: Option<String>,

    /// The schema registry for events on Kafka or RabbitMQ, which are then framed for Confluent's wire format: http(s)://… (several separated by
    /// commas), or file:///… for a directory of schemas
    #[arg(long, env = "SCHEMA_REGISTRY_URL", hide_env_values = true, value_name = "URL,…")]
    pub schema_registry_url: Option<String>,
}

impl fmt::Debug for BusArgs {
    /// Without RabbitMQ's address: there may be a password in it.
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
    /// What topics, event types and consumer groups begin with.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.bus_namespace.as_deref().unwrap_or("catacloud")
    }

    /// Where the schema registry is; nowhere when the setting is empty.
    ///
    /// # Errors
    /// [`ConfigError::SchemaRegistryUrl`] when it can't be read.
    pub fn schema_registry(&self) -> Result<Option<SchemaRegistryPlace>, ConfigError> {
        let wrong = |detail: &str| ConfigError::SchemaRegistryUrl { detail: detail.to_owned() };
        let list = self.schema_registry_url.as_deref().unwrap_or_default();
        let mut urls = Vec::new();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            urls.push(Url::parse(text).map_err(|error| wrong(&error.to_string()))?);
        }
        match urls.as_slice() {
            [] => Ok(None),
            [directory] if directory.scheme() == "file" => {
                let path =
                    directory.to_file_path().map_err(|()| wrong("file:///… names a directory of this machine"))?;
                Ok(Some(SchemaRegistryPlace::Directory(path)))
            }
            servers if servers.iter().all(|url| matches!(url.scheme(), "http" | "https")) => {
                Ok(Some(SchemaRegistryPlace::Urls(urls.iter().map(Url::to_string).collect())))
            }
            _ => Err(wrong("http(s)://…, or one file:///…")),
        }
    }

    /// The bus these settings choose. An empty address counts as not set.
    ///
    /// # Errors
    /// [`ConfigError::KafkaWithoutServers`] or [`ConfigError::RabbitWithoutUrl`] when one was chosen without its address.
    pub fn resolve(&self) -> Result<Bus, ConfigError> {
        let set = |value: &Option<String>| {
            let value = value.as_deref().map(str::trim).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        let kafka = set(&self.kafka_bootstrap_servers).map(|bootstrap_servers| Bus::Kafka { bootstrap_servers });
        let ca_file = self.amqp_ca_file.clone().filter(|path| !path.as_os_str().is_empty());
        let rabbit = set(&self.amqp_url).map(|url| Bus::Rabbit { url, ca_file });
        match self.bus {
            Some(BusName::Kafka) => kafka.ok_or(ConfigError::KafkaWithoutServers),
            Some(BusName::Rabbitmq) => rabbit.ok_or(ConfigError::RabbitWithoutUrl),
            Some(BusName::Postgres) => Ok(Bus::Postgres),
            Some(BusName::Memory) => Ok(Bus::Memory),
            None => Ok(kafka.or(rabbit).unwrap_or(Bus::Postgres)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bus, BusArgs, BusName, ConfigError, SchemaRegistryPlace};

    #[test]
    fn the_bus_follows_from_what_is_set() {
        let kafka = || Ok(Bus::Kafka { bootstrap_servers: "k:9092".into() });
        let rabbit = || Ok(Bus::Rabbit { url: "amqp://r".into(), ca_file: None });
        let cases = [
            (None, None, None, Ok(Bus::Postgres)),
            (Some("k:9092"), None, None, kafka()),
            (Some(" "), Some(""), None, Ok(Bus::Postgres)),
            (Some("k:9092"), None, Some(BusName::Kafka), kafka()),
            (None, Some("amqp://r"), Some(BusName::Kafka), Err(ConfigError::KafkaWithoutServers)),
            (None, Some("amqp://r"), None, rabbit()),
            (Some("k:9092"), Some("amqp://r"), None, kafka()),
            (Some("k:9092"), Some("amqp://r"), Some(BusName::Rabbitmq), rabbit()),
            (Some("k:9092"), None, Some(BusName::Rabbitmq), Err(ConfigError::RabbitWithoutUrl)),
            (Some("k:9092"), Some("amqp://r"), Some(BusName::Postgres), Ok(Bus::Postgres)),
            (Some("k:9092"), None, Some(BusName::Memory), Ok(Bus::Memory)),
        ];
        for (servers, url, bus, expected) in cases {
            let (kafka_bootstrap_servers, amqp_url) = (servers.map(str::to_owned), url.map(str::to_owned));
            let args = BusArgs { kafka_bootstrap_servers, amqp_url, bus, ..BusArgs::default() };
            assert_eq!(args.resolve(), expected, "{servers:?}, {url:?}, {bus:?}");
        }
    }

    #[test]
    fn a_registry_is_servers_or_a_directory() {
        let place =
            |text: &str| BusArgs { schema_registry_url: Some(text.to_owned()), ..BusArgs::default() }.schema_registry();
        let urls =
            |urls: &[&str]| Ok(Some(SchemaRegistryPlace::Urls(urls.iter().map(|url| (*url).to_owned()).collect())));
        assert_eq!(BusArgs::default().schema_registry(), Ok(None));
        assert_eq!(place(" "), Ok(None));
        assert_eq!(place("http://registry:8081"), urls(&["http://registry:8081/"]));
        assert_eq!(place("https://a/x, http://b:1"), urls(&["https://a/x", "http://b:1/"]));
        assert_eq!(place("file:///srv/schemas"), Ok(Some(SchemaRegistryPlace::Directory("/srv/schemas".into()))));
        for wrong in ["registry", "ftp://registry", "file:///a,http://b", "file:///a,file:///b"] {
            assert!(matches!(place(wrong), Err(ConfigError::SchemaRegistryUrl { .. })), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let args = BusArgs { amqp_url: Some("amqp://user:secret@r".to_owned()), ..BusArgs::default() };
        assert!(!format!("{args:?} {:?}", args.resolve()).contains("secret"));
    }
}
