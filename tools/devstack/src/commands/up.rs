//! `./dev up`: Postgres, a bus, Catacloud and its demo data.

mod build;
mod bus;
mod catacloud;
mod demo;
mod secrets;

use std::{env, fs};

pub(crate) use catacloud::Catacloud;

use self::{bus::Bus, demo::Demo, secrets::Secrets};
use super::stack::{self, UpLock, environment_file, summary_file};
use crate::{
    Error, checkout, console, interrupt, ports,
    scope::Scope,
    servers::{self, Postgres, Server},
    test_servers::without_password,
    toolchain,
};

const DEFAULT_PORT: &str = "8080";

pub(crate) fn run(arguments: &[String]) -> Result<(), Error> {
    if !arguments.is_empty() {
        return Err(Error::Usage("./dev up"));
    }
    let port = env::var("CATACLOUD_PORT").ok().filter(|port| !port.is_empty());
    let _lock = UpLock::acquire()?;
    if let Ok(summary) = fs::read_to_string(summary_file())
        && Catacloud::installed().is_ready()
    {
        console::print(summary.trim_end_matches('\n'));
        return Ok(());
    }
    toolchain::require_disk()?;
    toolchain::require_rust()?;
    let port = ports::parse(port.as_deref().unwrap_or(DEFAULT_PORT))?;
    // The processes of an unhealthy `up` end first: a clean start is simpler than a repair.
    stack::stop()?;
    if ports::is_open(port) {
        return Err(Error::ConsolePortInUse(port));
    }
    let started = start(port);
    if started.is_err() {
        interrupt::disable();
        console::report("dev: stopping the started servers");
        stack::stop()?;
    }
    console::print(started?.trim_end_matches('\n'));
    Ok(())
}

/// Starts the stack and returns its summary.
fn start(port: u16) -> Result<String, Error> {
    let scope = Scope::open(checkout::up())?;
    let program = build::catacloud(&scope)?;
    let (database_url, database) = start_postgres(&scope)?;
    let bus = Bus::start(&scope)?;
    let secrets = Secrets::load_or_create(&checkout::up().join("secrets"))?;
    let catacloud = Catacloud::new(program);
    catacloud.start(port, &database_url, &bus, &secrets, &scope)?;
    let base = format!("http://127.0.0.1:{port}");
    let demo = Demo::create(&catacloud, &base, &secrets, &scope)?;
    checkout::write_private(&environment_file(), &environment(&base, &demo, &secrets))?;
    let summary = summary(&base, &database, &bus, &demo);
    checkout::write_private(&summary_file(), &summary)?;
    Ok(summary)
}

/// Returns the URL of the Postgres and its description for the summary.
fn start_postgres(scope: &Scope) -> Result<(String, String), Error> {
    if let Some(url) = env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        let description = format!("DATABASE_URL, {}", without_password(&url));
        return Ok((url, description));
    }
    console::report("starting Postgres");
    let directory = checkout::up().join("postgres");
    let url = Postgres::new(&directory)?.with_scope(scope).start(ports::reuse_or_choose(&directory)?)?;
    let version = servers::postgres::version();
    let description = format!("{version}, a private cluster in {}, {url}", checkout::relative(&directory));
    Ok((url, description))
}

fn environment(base: &str, demo: &Demo, secrets: &Secrets) -> String {
    let (organization, key, admin) = (&demo.organization, &demo.api_key, secrets.admin_key());
    format!("BASE={base}\nORG={organization}\nKEY={key}\nADMIN={admin}\n")
}

fn summary(base: &str, database: &str, bus: &Bus, demo: &Demo) -> String {
    let Demo { organization, api_key, job } = demo;
    let log = checkout::relative(&Catacloud::log());
    let environment = checkout::relative(&environment_file());
    format!(
        "
Catacloud is up: {base}

  Postgres   {database}
  Bus        {}
  Demo key   {api_key}
  Try        curl -H 'Authorization: Bearer {api_key}' \\
               {base}/api/v1/organizations/{organization}/jobs/{job}
  Scripts    BASE, ORG, KEY and ADMIN are in {environment}: . {environment}
  Logs       {log}
  Stop       ./dev down
",
        bus.description(),
    )
}

#[cfg(test)]
mod tests {
    use super::{Demo, Secrets, environment};

    #[test]
    fn environment_has_a_line_for_each_variable() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::load_or_create(&directory.path().join("secrets")).unwrap();
        let demo = Demo { organization: "0190".into(), api_key: "cat_1".into(), job: "0191".into() };
        let admin = secrets.admin_key();
        let expected = format!("BASE=http://127.0.0.1:8080\nORG=0190\nKEY=cat_1\nADMIN={admin}\n");
        assert_eq!(environment("http://127.0.0.1:8080", &demo, &secrets), expected);
    }
}
