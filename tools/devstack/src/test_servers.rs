//! Servers for `test` and `bench`: named by the environment, else private and part of the run's scope.

use std::{env, process::Command};

use crate::{
    Error, console,
    gates::is_ci,
    packages::apt_install,
    ports,
    scope::Scope,
    servers::{self, Kafka, Postgres, RabbitMq, Server},
    subprocess::{find_program, output_of},
};

/// A server that tests use.
pub(crate) struct TestServer {
    /// The URL, or `HOST:PORT` for Kafka; `None` if there is no server.
    pub(crate) address: Option<String>,
    /// The server, its version and where it comes from, for the last lines of the run.
    pub(crate) description: String,
}

impl TestServer {
    fn at(address: String, description: String) -> Self {
        Self { address: Some(address), description }
    }

    fn missing(description: &str) -> Self {
        Self { address: None, description: description.to_owned() }
    }
}

/// Returns the Postgres of `EPOCH_TEST_DATABASE_URL`, else starts one with `shared_buffers` of this size, or the
/// default.
pub(crate) fn postgres(scope: &Scope, shared_buffers: Option<String>) -> Result<TestServer, Error> {
    if let Some(url) = variable("EPOCH_TEST_DATABASE_URL") {
        return Ok(TestServer::at(url, "the Postgres of EPOCH_TEST_DATABASE_URL".to_owned()));
    }
    let mut server = Postgres::new(scope.directory().join("postgres"))?.with_scope(scope);
    if let Some(size) = shared_buffers {
        server = server.with_shared_buffers(size);
    }
    let url = server.start(ports::choose()?)?;
    Ok(TestServer::at(url, format!("{}, private, fsync on", servers::postgres::version())))
}

/// Returns the Kafka of `EPOCH_TEST_KAFKA` or `KAFKA_BOOTSTRAP_SERVERS`, else starts one; no server if Java or Maven
/// are missing.
pub(crate) fn kafka(scope: &Scope, full_jit: bool) -> Result<TestServer, Error> {
    if let Some(address) = variable("EPOCH_TEST_KAFKA").or_else(|| variable("KAFKA_BOOTSTRAP_SERVERS")) {
        let description = format!("the Kafka at {address}");
        return Ok(TestServer::at(address, description));
    }
    if !servers::kafka::is_available() {
        return Ok(TestServer::missing("librdkafka's mock cluster (Java 17+ with Maven is not installed)"));
    }
    let mut server = Kafka::new(scope.directory().join("kafka"))?.with_scope(scope);
    if full_jit {
        server = server.with_full_jit();
    }
    match server.start(ports::choose()?) {
        Ok(address) => {
            let description = format!("Apache Kafka {}, private, KRaft", servers::kafka::VERSION);
            Ok(TestServer::at(address, description))
        }
        Err(error) => fall_back(error, "librdkafka's mock cluster (Apache Kafka did not start)"),
    }
}

/// Returns the RabbitMQ of `EPOCH_TEST_AMQP`, else starts one, which it installs if that is allowed.
pub(crate) fn rabbitmq(scope: &Scope) -> Result<TestServer, Error> {
    if let Some(url) = variable("EPOCH_TEST_AMQP") {
        let description = format!("the RabbitMQ at {}", without_password(&url));
        return Ok(TestServer::at(url, description));
    }
    let missing = "none: its suites were left out (apt-get install rabbitmq-server)";
    let server = RabbitMq::new(scope.directory().join("rabbitmq"))?.with_scope(scope);
    match server.start(ports::choose()?) {
        Ok(url) => Ok(TestServer::at(url, format!("{}, private", servers::rabbitmq::version()))),
        Err(error) => fall_back(error, missing),
    }
}

/// Returns the version of kcat, with which one test reads the topics as a foreign client; installs it if that is
/// allowed.
pub(crate) fn kcat() -> Result<String, Error> {
    if find_program("kcat").is_none() {
        apt_install(&["kcat"])?;
    }
    let version = output_of(Command::new("kcat").arg("-V")).and_then(|text| kcat_version(&text));
    Ok(match version {
        Some(version) => format!("kcat {version}"),
        None if find_program("kcat").is_some() => "kcat".to_owned(),
        None => "no kcat: no foreign client read the topics (apt-get install kcat)".to_owned(),
    })
}

fn kcat_version(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("Version "))?;
    let end = line.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(line.len());
    Some(line[..end].to_owned())
}

fn fall_back(error: Error, description: &str) -> Result<TestServer, Error> {
    if is_ci() || matches!(error, Error::Interrupted(_)) {
        return Err(error);
    }
    console::report(format!("dev: {error}"));
    Ok(TestServer::missing(description))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Replaces the password in a URL by `***`.
pub(crate) fn without_password(url: &str) -> String {
    let mut shown = url.to_owned();
    if let Some((scheme, rest)) = url.split_once("://") {
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        if let Some((user, _)) = authority.split_once('@').and_then(|(userinfo, _)| userinfo.split_once(':')) {
            let after = rest.split_once('@').map_or("", |(_, after)| after);
            shown = format!("{scheme}://{user}:***@{after}");
        }
    }
    for name in ["?password=", "&password="] {
        if let Some((before, after)) = shown.split_once(name) {
            let after = after.find('&').map_or("", |end| &after[end..]);
            shown = format!("{before}{name}***{after}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{kcat_version, without_password};

    #[test]
    fn password_of_a_url_is_hidden() {
        for (url, shown) in [
            ("postgres://me:secret@host:5432/db", "postgres://me:***@host:5432/db"),
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("postgres://host/db?user=me&password=secret&x=1", "postgres://host/db?user=me&password=***&x=1"),
            ("postgres://host/db?password=secret", "postgres://host/db?password=***"),
            ("amqp://guest:guest@127.0.0.1:5672", "amqp://guest:***@127.0.0.1:5672"),
            ("host:9092", "host:9092"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn kcat_version_is_read_from_its_output() {
        let text = "kcat - Apache Kafka producer and consumer tool\nVersion 1.7.1 (JSON, librdkafka 2.0.2)\n";
        assert_eq!(kcat_version(text).as_deref(), Some("1.7.1"));
    }
}
