//! Settings, each a command-line flag with an environment variable.
//!
//! All settings are typed, documented (the comments here are the `--help`) and checked at start. Secrets appear neither in
//! `--help` nor in debug output.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::{Args, ValueEnum};
use http_kit::Secrets;
use reqwest::Url;
use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use crate::buses::BusArgs;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("DATABASE_URL is invalid: {detail}")]
    DatabaseUrl { detail: String },
}

/// Returns the default address of a service with this port, on the loopback interface.
#[must_use]
pub fn default_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The settings of a process that runs services.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub bus: BusArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub secret: SecretArgs,
    #[command(flatten)]
    pub peers: PeerArgs,
}

#[derive(Clone, Args)]
pub struct DatabaseArgs {
    /// The PostgreSQL database, e.g. postgres://user:password@host:5432/catacloud
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,

    /// The maximum number of PostgreSQL connections for each service in this process, e.g. 32
    #[arg(long, env = "CATACLOUD_DB_POOL", default_value_t = 16, value_name = "CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_pool: u32,
}

impl DatabaseArgs {
    /// A request that waits longer for a connection fails with 503.
    const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

    /// A connection that was idle for longer is pinged before use.
    const PING_AFTER: Duration = Duration::from_secs(1);

    /// Returns the options to connect as `service`, whose tables are in the schema of the same name.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] for an invalid URL.
    pub fn connect_options(&self, service: &str) -> Result<PgConnectOptions, ConfigError> {
        let invalid = |detail: String| ConfigError::DatabaseUrl { detail };
        // sqlx would accept the URL of any database.
        let url = Url::parse(&self.database_url).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid(format!("the scheme is {}, expected postgres", url.scheme())));
        }
        let options: PgConnectOptions =
            self.database_url.parse().map_err(|error: sqlx::Error| invalid(error.to_string()))?;
        Ok(options.application_name(service).options([("search_path", service)]))
    }

    /// Returns a pool that connects on first use, so that a process can start before its database.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] for an invalid URL.
    pub fn pool(&self, service: &str) -> Result<PgPool, ConfigError> {
        let options = self.connect_options(service)?;
        // A ping costs a round trip, so a connection that was used a moment ago is not pinged.
        let pool = PgPoolOptions::new()
            .max_connections(self.database_pool)
            .acquire_timeout(Self::ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > Self::PING_AFTER {
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

#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ListenArgs {
    /// The address to serve HTTP on, e.g. 0.0.0.0:8081 [default: the service's port on 127.0.0.1]
    #[arg(long, env = "CATACLOUD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

impl ListenArgs {
    #[must_use]
    pub fn address(&self, default: SocketAddr) -> SocketAddr {
        self.listen.unwrap_or(default)
    }
}

#[derive(Debug, Clone, Args)]
pub struct SecretArgs {
    /// The secret that all processes of this installation share: at least 16 bytes, e.g. from `openssl rand -hex 32`
    #[arg(long = "secret", env = "CATACLOUD_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub secrets: Secrets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines of text for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// The log filter, e.g. info,epoch=debug [default: RUST_LOG, else info]
    #[arg(long, env = "CATACLOUD_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// The log filter, if CATACLOUD_LOG is not set
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", hide = true)]
    pub rust_log: Option<String>,

    /// The format of log lines
    #[arg(long, env = "CATACLOUD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// The collector to export traces to with OTLP over HTTP, e.g. http://collector:4318 [default: no export]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl LogArgs {
    /// Returns the log filter in the syntax of `tracing-subscriber`.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.log.as_deref().or(self.rust_log.as_deref()).unwrap_or("info")
    }

    /// Returns the collector's address. OpenTelemetry defines that an empty address counts as not set.
    #[must_use]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        self.otlp_endpoint.as_deref().map(str::trim).filter(|endpoint| !endpoint.is_empty())
    }
}

#[derive(Debug, Clone, Args)]
pub struct PeerArgs {
    /// The address of the organization service
    #[arg(long, env = "CATACLOUD_ORGANIZATION_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub organization_url: Url,

    /// The address of the job service
    #[arg(long, env = "CATACLOUD_JOB_URL", default_value = "http://127.0.0.1:8082", value_name = "URL")]
    pub job_url: Url,

    /// The address of the file service
    #[arg(long, env = "CATACLOUD_FILE_URL", default_value = "http://127.0.0.1:8083", value_name = "URL")]
    pub file_url: Url,

    /// The address of the billing service
    #[arg(long, env = "CATACLOUD_BILLING_URL", default_value = "http://127.0.0.1:8084", value_name = "URL")]
    pub billing_url: Url,

    /// The address of the runner
    #[arg(long, env = "CATACLOUD_RUNNER_URL", default_value = "http://127.0.0.1:8085", value_name = "URL")]
    pub runner_url: Url,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{ConfigError, DatabaseArgs, ListenArgs, LogArgs, LogFormat, ProcessArgs};

    #[derive(Debug, Parser)]
    struct TestArgs {
        #[command(flatten)]
        process: ProcessArgs,
        #[command(flatten)]
        log: LogArgs,
    }

    const SECRET: &str = "a secret for the tests";
    const URL: &str = "postgres://me:hunter2@db:5433/catacloud";

    fn parse(extra: &[&str]) -> Result<TestArgs, clap::Error> {
        let required = ["test", "--secret", SECRET, "--database-url", URL];
        TestArgs::try_parse_from(required.iter().chain(extra))
    }

    #[test]
    fn settings_parse_together() {
        TestArgs::command().debug_assert();
        let TestArgs { process, log } = parse(&["--listen", "0.0.0.0:9000", "--log-format", "json"]).unwrap();
        assert_eq!(process.listen.address("127.0.0.1:1".parse().unwrap()).port(), 9000);
        assert_eq!(ListenArgs::default().address("127.0.0.1:1".parse().unwrap()).port(), 1);
        assert_eq!(log.log_format, LogFormat::Json);
        assert_eq!(process.peers.runner_url.port(), Some(8085));
        assert!(process.bus.resolve().is_ok());
    }

    #[test]
    fn every_setting_has_help_and_a_variable() {
        let command = TestArgs::command();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
            assert!(argument.get_env().is_some(), "{} has no variable", argument.get_id());
        }
    }

    #[test]
    fn invalid_setting_is_refused() {
        for invalid in [["--listen", "9000"], ["--database-pool", "0"], ["--bus", "rabbit"], ["--job-url", "job"]] {
            assert!(parse(&invalid).is_err(), "{invalid:?}");
        }
        assert!(TestArgs::try_parse_from(["test", "--database-url", URL, "--secret", "short"]).is_err());
        for database_url in ["", "db:5432", "mysql://db/catacloud", "postgres://db:port/catacloud"] {
            let database = DatabaseArgs { database_url: database_url.into(), database_pool: 1 };
            let result = database.connect_options("job");
            assert!(matches!(result, Err(ConfigError::DatabaseUrl { .. })), "{database_url}");
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        let debug = format!("{:?}", parse(&[]).unwrap());
        assert!(!debug.contains(SECRET) && !debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn connection_uses_the_schema_of_the_service() {
        let options = parse(&[]).unwrap().process.database.connect_options("job").unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("db", 5433));
        assert!(options.get_options().unwrap().contains("search_path=job"));
    }

    #[test]
    fn log_filter_prefers_catacloud_log() {
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
    fn empty_collector_is_none() {
        let args = |endpoint: &str| LogArgs { otlp_endpoint: Some(endpoint.to_owned()), ..LogArgs::default() };
        assert_eq!(args("").otlp_endpoint(), None);
        assert_eq!(args("http://collector:4318").otlp_endpoint(), Some("http://collector:4318"));
    }
}
