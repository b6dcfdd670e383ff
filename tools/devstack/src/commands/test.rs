//! `./dev test`: all gates, against real servers.

use std::time::Instant;

use super::{run_in_scope, scope_environment};
use crate::{
    Error, console,
    gates::Gates,
    scope::Scope,
    test_servers::{self, TestServer},
    toolchain,
};

/// The servers of a run.
struct TestServers {
    postgres: TestServer,
    kafka: TestServer,
    rabbitmq: TestServer,
    kcat: String,
}

/// Runs all gates, or only tests if there are filters or options for `cargo test`.
pub(crate) fn run(filters: &[String]) -> Result<(), Error> {
    let began = Instant::now();
    toolchain::require_disk()?;
    toolchain::require_rust()?;
    toolchain::require_components()?;
    run_in_scope("test", |scope| {
        let mut gates = Gates::new("test", scope_environment(scope));
        let servers = gates.timed("services", || start_servers(scope))?;
        let TestServers { postgres, kafka, rabbitmq, kcat } = &servers;
        let variables =
            [("EPOCH_TEST_DATABASE_URL", postgres), ("EPOCH_TEST_KAFKA", kafka), ("EPOCH_TEST_AMQP", rabbitmq)];
        gates.extend_environment(
            variables.into_iter().filter_map(|(name, server)| Some((name, server.address.as_ref()?.into()))),
        );
        let dependencies = if filters.is_empty() {
            run_all(&gates)?
        } else {
            gates.tests(&cargo_arguments(filters))?;
            "not checked (only without filters)"
        };
        console::print(format!(
            "\nran against\n  Postgres      {}\n  Kafka         {}\n  RabbitMQ      {}\n  client        {kcat}\n  \
             dependencies  {dependencies}",
            postgres.description, kafka.description, rabbitmq.description,
        ));
        console::print(format!("total {} s\ndev test: passed", began.elapsed().as_secs()));
        Ok(())
    })
}

fn start_servers(scope: &Scope) -> Result<TestServers, Error> {
    let postgres = test_servers::postgres(scope, None)?;
    let kafka = test_servers::kafka(scope, false)?;
    let rabbitmq = test_servers::rabbitmq(scope)?;
    let kcat = test_servers::kcat()?;
    for line in [&postgres.description, &kafka.description, &rabbitmq.description, &kcat] {
        console::print(line);
    }
    Ok(TestServers { postgres, kafka, rabbitmq, kcat })
}

/// Runs every gate, the fast ones first. Returns the line about dependencies.
fn run_all(gates: &Gates) -> Result<&'static str, Error> {
    gates.format()?;
    gates.shell_scripts()?;
    gates.compose_file()?;
    gates.checks()?;
    gates.api_contract()?;
    gates.lints()?;
    gates.documentation()?;
    gates.build()?;
    gates.tests(&cargo_arguments(&[]))?;
    gates.unused_dependencies()?;
    gates.dependencies()
}

/// Returns the arguments of `cargo test`. An option is for cargo; words are filters, which cargo passes to each test
/// binary.
fn cargo_arguments(filters: &[String]) -> Vec<String> {
    let is_option = filters.iter().any(|filter| filter.starts_with('-'));
    let arguments: &[&str] = match (is_option, filters.is_empty()) {
        (true, _) => &["--locked"],
        (false, true) => &["--workspace", "--locked"],
        (false, false) => &["--workspace", "--locked", "--"],
    };
    arguments.iter().map(|argument| (*argument).to_owned()).chain(filters.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::cargo_arguments;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn filters_go_to_test_binaries_and_options_to_cargo() {
        assert_eq!(cargo_arguments(&[]), strings(&["--workspace", "--locked"]));
        let filters = strings(&["replay", "relay"]);
        assert_eq!(cargo_arguments(&filters), strings(&["--workspace", "--locked", "--", "replay", "relay"]));
        let options = strings(&["-p", "epoch", "--lib", "replay"]);
        assert_eq!(cargo_arguments(&options), strings(&["--locked", "-p", "epoch", "--lib", "replay"]));
    }
}
