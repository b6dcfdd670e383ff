//! `./dev postgres|kafka|rabbitmq VERB DIR [PORT]`: a single server, for work on one test.

use crate::{Error, console, ports, servers::ServerKind};

/// Runs a verb. The only line on stdout is the address of a started server.
pub(crate) fn run(kind: ServerKind, arguments: &[String]) -> Result<(), Error> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["start", directory, port] => {
            let port = ports::parse(port)?;
            console::print(kind.open(directory.as_ref())?.start(port)?);
            Ok(())
        }
        ["stop", directory] => kind.open(directory.as_ref())?.stop(),
        ["kill", directory] => kind.open(directory.as_ref())?.kill(),
        ["remove", directory] => kind.open(directory.as_ref())?.remove(),
        _ => Err(Error::Usage(usage(kind))),
    }
}

fn usage(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Postgres => "./dev postgres start DIR PORT | stop DIR | kill DIR | remove DIR",
        ServerKind::Kafka => "./dev kafka start DIR PORT | stop DIR | kill DIR | remove DIR",
        ServerKind::RabbitMq => "./dev rabbitmq start DIR PORT | stop DIR | kill DIR | remove DIR",
    }
}
