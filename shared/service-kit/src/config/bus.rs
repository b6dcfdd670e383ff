//! Which bus events travel on.

use clap::{Args, ValueEnum};

use super::ConfigError;

/// How events travel between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BusName {
    /// Apache Kafka, or what speaks its protocol
    Kafka,
    /// Tables in the same PostgreSQL
    Postgres,
    /// This process's memory: all services in one process, and nothing survives it
    Memory,
}

/// Which bus, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// Kafka at these addresses.
    Kafka {
        /// `host:port`, separated by commas.
        bootstrap_servers: String,
    },
    /// Tables in the same PostgreSQL.
    Postgres,
    /// This process's memory.
    Memory,
}

/// Which bus events travel on.
#[derive(Debug, Clone, Default, Args)]
pub struct BusArgs {
    /// Kafka's addresses, as in host:9092,other:9092
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,…")]
    pub kafka_bootstrap_servers: Option<String>,

    /// The bus [default: kafka if its addresses are set, else postgres]
    #[arg(long, env = "CATACLOUD_BUS", value_name = "BUS")]
    pub bus: Option<BusName>,

    /// Begins topics, event types and consumer groups; installations that share a broker need different ones [default: catacloud]
    #[arg(long, env = "CATACLOUD_BUS_NAMESPACE", value_name = "NAME")]
    pub bus_namespace: Option<String>,
}

impl BusArgs {
    /// What topics, event types and consumer groups begin with.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.bus_namespace.as_deref().unwrap_or("catacloud")
    }

    /// The bus these settings choose. An empty address counts as not set.
    ///
    /// # Errors
    /// [`ConfigError::KafkaWithoutServers`] when Kafka was chosen without addresses.
    pub fn resolve(&self) -> Result<Bus, ConfigError> {
        let servers = self.kafka_bootstrap_servers.as_deref().map(str::trim).filter(|servers| !servers.is_empty());
        let kafka = servers.map(|servers| Bus::Kafka { bootstrap_servers: servers.to_owned() });
        match self.bus {
            Some(BusName::Kafka) => kafka.ok_or(ConfigError::KafkaWithoutServers),
            Some(BusName::Postgres) => Ok(Bus::Postgres),
            Some(BusName::Memory) => Ok(Bus::Memory),
            None => Ok(kafka.unwrap_or(Bus::Postgres)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bus, BusArgs, BusName, ConfigError};

    #[test]
    fn the_bus_follows_from_what_is_set() {
        let kafka = || Ok(Bus::Kafka { bootstrap_servers: "k:9092".into() });
        let cases = [
            (None, None, Ok(Bus::Postgres)),
            (Some("k:9092"), None, kafka()),
            (Some(" "), None, Ok(Bus::Postgres)),
            (Some("k:9092"), Some(BusName::Kafka), kafka()),
            (None, Some(BusName::Kafka), Err(ConfigError::KafkaWithoutServers)),
            (Some("k:9092"), Some(BusName::Postgres), Ok(Bus::Postgres)),
            (Some("k:9092"), Some(BusName::Memory), Ok(Bus::Memory)),
        ];
        for (servers, bus, expected) in cases {
            let args = BusArgs { kafka_bootstrap_servers: servers.map(str::to_owned), bus, bus_namespace: None };
            assert_eq!(args.resolve(), expected, "{args:?}");
        }
    }
}
