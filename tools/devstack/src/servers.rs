//! Servers for development and tests. Each keeps everything in one directory.

pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod rabbitmq;
pub(crate) mod redpanda;

use std::path::{Path, PathBuf};

pub use kafka::Kafka;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;

use crate::{Error, checkout, ports};

/// A server that is started, stopped and killed by its directory. Its data survives [`stop`](Server::stop) and
/// [`kill`](Server::kill).
pub trait Server {
    /// Starts the server, waits until it is ready, and returns its URL, or `HOST:PORT` for Kafka.
    ///
    /// Returns at once if the server runs already on this port.
    ///
    /// # Errors
    /// If the server isn't installed and can't be installed, the port is taken, or the server doesn't become ready.
    fn start(&self, port: u16) -> Result<String, Error>;

    /// Shuts the server down in order. Succeeds if it doesn't run.
    ///
    /// # Errors
    /// If the server doesn't stop.
    fn stop(&self) -> Result<(), Error>;

    /// Ends the server as a crash would. Succeeds if it doesn't run.
    ///
    /// # Errors
    /// If the server doesn't stop.
    fn kill(&self) -> Result<(), Error>;

    /// Kills the server and deletes its directory.
    ///
    /// # Errors
    /// If the server doesn't stop or its data can't be deleted.
    fn remove(&self) -> Result<(), Error>;
}

/// The kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerKind {
    Postgres,
    Kafka,
    RabbitMq,
}

impl ServerKind {
    /// Parses a name as returned by [`name`](Self::name).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Postgres, Self::Kafka, Self::RabbitMq].into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name of the command that controls such a server.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// Creates a handle of the server in `directory`.
    pub(crate) fn open(self, directory: &Path) -> Result<Box<dyn Server>, Error> {
        Ok(match self {
            Self::Postgres => Box::new(Postgres::new(directory)?),
            Self::Kafka => Box::new(Kafka::new(directory)?),
            Self::RabbitMq => Box::new(RabbitMq::new(directory)?),
        })
    }
}

/// The port file of a server, which holds the port of its last start.
fn record_port(directory: &Path, port: u16) -> Result<(), Error> {
    checkout::write(&directory.join("port"), format!("{port}\n"))
}

/// Checks that the running server of `directory` has the wanted port.
fn require_same_port(server: &'static str, directory: &Path, port: u16) -> Result<(), Error> {
    let last = ports::last(directory);
    if last == Some(port) {
        return Ok(());
    }
    let port = last.map_or_else(|| "unknown".to_owned(), |port| port.to_string());
    Err(Error::RunsElsewhere { server, directory: directory.to_owned(), port })
}

/// Names a server with its directory, for an error.
fn name_with_directory(server: &str, directory: &Path) -> String {
    format!("{server} in {}", directory.display())
}

/// Resolves the directory of a server.
fn server_directory(directory: impl AsRef<Path>) -> Result<PathBuf, Error> {
    checkout::absolute(directory.as_ref())
}
