//! `./dev postgres|kafka|rabbitmq VERB DIR [PORT]`: a single server, for work on one test.

use crate::{
    Error, console, ports,
    servers::{Kafka, Postgres, RabbitMq, Server},
};

/// The kind of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerKind {
    Postgres,
    Kafka,
    RabbitMq,
}

impl ServerKind {
    /// Parses the name of a command.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "postgres" => Some(Self::Postgres),
            "kafka" => Some(Self::Kafka),
            "rabbitmq" => Some(Self::RabbitMq),
            _ => None,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Postgres => "./dev postgres start DIR PORT | stop DIR | kill DIR | remove DIR",
            Self::Kafka => "./dev kafka start DIR PORT | stop DIR | kill DIR | remove DIR",
            Self::RabbitMq => "./dev rabbitmq start DIR PORT | stop DIR | kill DIR | remove DIR",
        }
    }

    fn open(self, directory: &str) -> Result<Box<dyn Server>, Error> {
        Ok(match self {
            Self::Postgres => Box::new(Postgres::new(directory)?),
            Self::Kafka => Box::new(Kafka::new(directory)?),
            Self::RabbitMq => Box::new(RabbitMq::new(directory)?),
        })
    }
}

/// Runs a verb. The only line on stdout is the address of a started server.
pub(crate) fn run(kind: ServerKind, arguments: &[String]) -> Result<(), Error> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["start", directory, port] => {
            let port = ports::parse(port)?;
            console::print(kind.open(directory)?.start(port)?);
            Ok(())
        }
        ["stop", directory] => kind.open(directory)?.stop(),
        ["kill", directory] => kind.open(directory)?.kill(),
        ["remove", directory] => kind.open(directory)?.remove(),
        _ => Err(Error::Usage(kind.usage())),
    }
}
