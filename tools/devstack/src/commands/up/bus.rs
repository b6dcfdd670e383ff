//! The bus of `up`: named by the environment, else Redpanda in Docker, Apache Kafka, or Postgres.

use std::env;

use crate::{
    Error, checkout, console, ports,
    scope::Scope,
    servers::{self, Kafka, Server, redpanda},
    test_servers::without_password,
};

/// The environment variables that select a bus.
pub(super) const VARIABLES: [&str; 3] = ["CATACLOUD_BUS", "KAFKA_BOOTSTRAP_SERVERS", "AMQP_URL"];

/// A bus that Catacloud publishes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bus {
    /// Tables of Catacloud's Postgres.
    Postgres {
        reason: String,
    },
    /// Kafka or Redpanda.
    Kafka {
        servers: String,
        origin: String,
    },
    RabbitMq {
        url: String,
    },
}

impl Bus {
    /// Chooses the bus, and starts its server unless the environment names one.
    pub(super) fn start(scope: &Scope) -> Result<Self, Error> {
        match Self::from_variables(|name| env::var(name).ok()) {
            Some(bus) => Ok(bus),
            None => Self::start_server(scope),
        }
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        if variable("CATACLOUD_BUS").as_deref() == Some("postgres") {
            return Some(Self::Postgres { reason: "as CATACLOUD_BUS=postgres is set".to_owned() });
        }
        if let Some(servers) = variable("KAFKA_BOOTSTRAP_SERVERS") {
            return Some(Self::Kafka { servers, origin: "the Kafka of KAFKA_BOOTSTRAP_SERVERS".to_owned() });
        }
        variable("AMQP_URL").map(|url| Self::RabbitMq { url })
    }

    fn start_server(scope: &Scope) -> Result<Self, Error> {
        let mut reason = "no Docker engine answers".to_owned();
        if redpanda::docker_answers()? {
            console::report("starting Redpanda in Docker");
            if let Some(servers) = redpanda::start()? {
                return Ok(Self::Kafka { servers, origin: format!("Redpanda in Docker ({})", redpanda::version()) });
            }
            redpanda::stop()?;
            reason = format!("Redpanda does not start in Docker (see {})", checkout::relative(&redpanda::log()));
            console::report(&reason);
        }
        if !servers::kafka::is_available() {
            let reason = format!("as {reason}, and Java 17+ with Maven is missing: install either for a Kafka broker");
            return Ok(Self::Postgres { reason });
        }
        console::report("starting Apache Kafka");
        let directory = checkout::up().join("kafka");
        let kafka = Kafka::new(&directory)?.with_scope(scope);
        match ports::reuse_or_choose(&directory).and_then(|port| kafka.start(port)) {
            Ok(servers) => {
                let version = servers::kafka::VERSION;
                let origin = format!("Apache Kafka {version} in {}", checkout::relative(&directory));
                Ok(Self::Kafka { servers, origin })
            }
            Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
            Err(error) => {
                console::report(format!("dev: {error}"));
                Ok(Self::Postgres { reason: format!("as {reason}, and Apache Kafka did not start") })
            }
        }
    }

    /// Returns the variable of [`VARIABLES`] that selects this bus, and its value.
    pub(super) fn variable(&self) -> (&'static str, &str) {
        match self {
            Self::Postgres { .. } => ("CATACLOUD_BUS", "postgres"),
            Self::Kafka { servers, .. } => ("KAFKA_BOOTSTRAP_SERVERS", servers),
            Self::RabbitMq { url } => ("AMQP_URL", url),
        }
    }

    /// Returns a line for the summary.
    pub(super) fn description(&self) -> String {
        match self {
            Self::Postgres { reason } => format!("Postgres, {reason}"),
            Self::Kafka { servers, origin } => format!("{origin}, {servers}"),
            Self::RabbitMq { url } => format!("the RabbitMQ of AMQP_URL, {}", without_password(url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bus;

    fn chosen(variables: &[(&str, &str)]) -> Option<(&'static str, String)> {
        let value =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        Bus::from_variables(value).map(|bus| (bus.variable().0, bus.variable().1.to_owned()))
    }

    #[test]
    fn environment_selects_the_bus_in_order() {
        let (postgres, kafka, amqp) =
            (("CATACLOUD_BUS", "postgres"), ("KAFKA_BOOTSTRAP_SERVERS", "host:9092"), ("AMQP_URL", "amqp://host"));
        assert_eq!(chosen(&[postgres, kafka, amqp]), Some(("CATACLOUD_BUS", "postgres".into())));
        assert_eq!(chosen(&[kafka, amqp]), Some(("KAFKA_BOOTSTRAP_SERVERS", "host:9092".into())));
        assert_eq!(chosen(&[amqp]), Some(("AMQP_URL", "amqp://host".into())));
        assert_eq!(chosen(&[("AMQP_URL", ""), ("CATACLOUD_BUS", "kafka")]), None);
    }

    #[test]
    fn description_hides_the_password() {
        let bus = Bus::RabbitMq { url: "amqp://me:secret@host".into() };
        assert_eq!(bus.description(), "the RabbitMQ of AMQP_URL, amqp://me:***@host");
    }
}
