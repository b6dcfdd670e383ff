//! Settings, each by flag or environment.
//!
//! The problem: a setting that is read deep inside the code is in no `--help`, has no type, and fails late.
//!
//! The invariant: all settings are here, typed and documented (these comments are the `--help`), and are checked when the
//! process starts; secrets show in no help text and no debug output.

mod bus;

use std::{fmt, net::SocketAddr, time::Duration};

use clap::{Args, ValueEnum};
use reqwest::Url;
use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

pub use self::bus::{Bus, BusArgs, BusName, SchemaRegistryPlace};
use crate::secrets::Secrets;

/// Settings that contradict each other or can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Kafka was chosen, but nothing says where it is.
    #[error("CATACLOUD_BUS is kafka, but KAFKA_BOOTSTRAP_SERVERS is not set")]
    KafkaWithoutServers,
    /// It isn't clear where the schema registry is.
    #[error("SCHEMA_REGISTRY_URL can't be read: {detail}")]
    SchemaRegistryUrl {
        /// What is wrong with it.
        detail: String,
    },
    /// RabbitMQ was chosen, but nothing says where it is.
    #[error("CATACLOUD_BUS is rabbitmq, but AMQP_URL is not set")]
    RabbitWithoutUrl,
    /// The database's URL can't be read.
    #[error("DATABASE_URL can't be read: {detail}")]
    DatabaseUrl {
        /// What is wrong with it.
        detail: String,
    },
}

/// Where the database is.
#[derive(Clone, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL's URL, as in postgres://user:password@host:5432/catacloud
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,

    /// The most connections to PostgreSQL that this process opens for each service in it
    #[arg(long, env = "CATACLOUD_DB_POOL", default_value_t = 16, value_name = "CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_pool: u32,
}

impl DatabaseArgs {
    /// Who waits longer for a connection is better told 503.
    const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

    /// How long a connection may have been idle and still be used unasked.
    const TRUSTED_FOR: Duration = Duration::from_secs(1);

    /// How to connect as `service`, whose tables are in the schema of the same name.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] when the URL can't be read.
    pub fn connect_options(&self, service: &str) -> Result<PgConnectOptions, ConfigError> {
        let unreadable = |detail: String| ConfigError::DatabaseUrl { detail };
        // The driver would take a URL of any database for one of its own.
        let url = Url::parse(&self.database_url).map_err(|error| unreadable(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(unreadable(format!("it is for {}, not for postgres", url.scheme())));
        }
        let options: PgConnectOptions =
            self.database_url.parse().map_err(|error: sqlx::Error| unreadable(error.to_string()))?;
        Ok(options.application_name(service).options([("search_path", service)]))
    }

    /// A pool that connects when it is first used, so that a process can start before its database.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] when the URL can't be read.
    pub fn pool(&self, service: &str) -> Result<PgPool, ConfigError> {
        let options = self.connect_options(service)?;
        // Asking an idle connection whether it is alive costs a round trip; one used a moment ago is taken as it is.
        let pool = PgPoolOptions::new()
            .max_connections(self.database_pool)
            .acquire_timeout(Self::ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > Self::TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
        Ok(pool.connect_lazy_with(options))
    }
}

impl fmt::Debug for DatabaseArgs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DatabaseArgs").field("database_pool", &self.database_pool).finish_non_exhaustive()
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ListenArgs {
    /// The address to serve HTTP on, as in 0.0.0.0:8081 [default: this service's own port on 127.0.0.1]
    #[arg(long, env = "CATACLOUD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

impl ListenArgs {
    /// The address to listen on, `default` being the service's own.
    #[must_use]
    pub fn address(&self, default: SocketAddr) -> SocketAddr {
        self.listen.unwrap_or(default)
    }
}

/// What the processes of one installation know each other by.
#[derive(Debug, Clone, Args)]
pub struct SecretArgs {
    /// The secret all processes of this installation share, at least 16 bytes, as from `openssl rand -hex 32`
    #[arg(long = "secret", env = "CATACLOUD_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub secrets: Secrets,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For machines: one object a line
    Json,
}

/// What is logged and traced.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// What to log, as in info,epoch=debug [default: RUST_LOG, else info]
    #[arg(long, env = "CATACLOUD_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// The same under its customary name
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", hide = true)]
    pub rust_log: Option<String>,

    /// How log lines look
    #[arg(long, env = "CATACLOUD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// Where to send traces (OTLP over HTTP), as in http://collector:4318; none are sent if not set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl LogArgs {
    /// What to log, as `tracing-subscriber` writes filters.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.log.as_deref().or(self.rust_log.as_deref()).unwrap_or("info")
    }

    /// Where to send traces; an empty address is none, as OpenTelemetry wants it.
    #[must_use]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        self.otlp_endpoint.as_deref().map(str::trim).filter(|endpoint| !endpoint.is_empty())
    }
}

/// Where the other services are.
#[derive(Debug, Clone, Args)]
pub struct PeerArgs {
    /// The organization service
    #[arg(long, env = "CATACLOUD_ORGANIZATION_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub organization_url: Url,

    /// The job service
    #[arg(long, env = "CATACLOUD_JOB_URL", default_value = "http://127.0.0.1:8082", value_name = "URL")]
    pub job_url: Url,

    /// The file service
    #[arg(long, env = "CATACLOUD_FILE_URL", default_value = "http://127.0.0.1:8083", value_name = "URL")]
    pub file_url: Url,

    /// The billing service
    #[arg(long, env = "CATACLOUD_BILLING_URL", default_value = "http://127.0.0.1:8084", value_name = "URL")]
    pub billing_url: Url,

    /// The runner
    #[arg(long, env = "CATACLOUD_RUNNER_URL", default_value = "http://127.0.0.1:8085", value_name = "URL")]
    pub runner_url: Url,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{BusArgs, ConfigError, DatabaseArgs, ListenArgs, LogArgs, LogFormat, PeerArgs, SecretArgs};

    #[derive(Debug, Parser)]
    struct Everything {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        bus: BusArgs,
        #[command(flatten)]
        listen: ListenArgs,
        #[command(flatten)]
        secret: SecretArgs,
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        peers: PeerArgs,
    }

    const SECRET: &str = "a secret for the tests";
    const URL: &str = "postgres://me:hunter2@db:5433/catacloud";

    fn parsed(extra: &[&str]) -> Result<Everything, clap::Error> {
        let required = ["test", "--secret", SECRET, "--database-url", URL];
        Everything::try_parse_from(required.iter().chain(extra))
    }

    #[test]
    fn all_settings_fit_together() {
        Everything::command().debug_assert();
        let everything = parsed(&["--listen", "0.0.0.0:9000", "--log-format", "json"]).unwrap();
        assert_eq!(everything.listen.address("127.0.0.1:1".parse().unwrap()).port(), 9000);
        assert_eq!(ListenArgs::default().address("127.0.0.1:1".parse().unwrap()).port(), 1);
        assert_eq!(everything.log.log_format, LogFormat::Json);
        assert_eq!(everything.peers.runner_url.port(), Some(8085));
        assert!(everything.bus.resolve().is_ok());
    }

    #[test]
    fn every_setting_is_explained_and_has_a_variable() {
        let command = Everything::command();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
            assert!(argument.get_env().is_some(), "{} has no variable", argument.get_id());
        }
    }

    #[test]
    fn nonsense_is_refused_at_the_start() {
        for wrong in [["--listen", "9000"], ["--database-pool", "0"], ["--bus", "rabbit"], ["--job-url", "job"]] {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
        assert!(Everything::try_parse_from(["test", "--database-url", URL, "--secret", "short"]).is_err());
        for database_url in ["", "db:5432", "mysql://db/catacloud", "postgres://db:port/catacloud"] {
            let database = DatabaseArgs { database_url: database_url.into(), database_pool: 1 };
            let refused = database.connect_options("job");
            assert!(matches!(refused, Err(ConfigError::DatabaseUrl { .. })), "{database_url}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let everything = format!("{:?}", parsed(&[]).unwrap());
        assert!(!everything.contains(SECRET) && !everything.contains("hunter2"), "{everything}");
    }

    #[test]
    fn connects_into_the_service_s_schema() {
        let options = parsed(&[]).unwrap().database.connect_options("job").unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("db", 5433));
        assert!(options.get_options().unwrap().contains("search_path=job"));
    }

    #[test]
    fn the_log_filter_has_two_names() {
        let args = |log: Option<&str>, rust_log: Option<&str>| LogArgs {
            log: log.map(str::to_owned),
            rust_log: rust_log.map(str::to_owned),
            ..LogArgs::default()
        };
        assert_eq!(args(None, None).filter(), "info");
        assert_eq!(args(None, Some("warn")).filter(), "warn");
        assert_eq!(args(Some("debug"), Some("warn")).filter(), "debug");
    }

    #[test]
    fn an_empty_collector_is_none() {
        let args = |endpoint: &str| LogArgs { otlp_endpoint: Some(endpoint.to_owned()), ..LogArgs::default() };
        assert_eq!(args("").otlp_endpoint(), None);
        assert_eq!(args("http://collector:4318").otlp_endpoint(), Some("http://collector:4318"));
    }
}
