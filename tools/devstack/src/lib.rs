//! Development stack: the servers, ports and processes that `./dev` and the tests start.
//!
//! People use it as `./dev COMMAND`. Tests use [`servers`] to start a Postgres, a Kafka or a RabbitMQ that they may
//! kill. Every process of one run belongs to a [`scope::Scope`], so that the end of the run finds them all.

#![forbid(unsafe_code)]

pub mod checkout;
pub mod cli;
mod commands;
mod console;
mod error;
mod gates;
mod http;
mod interrupt;
mod packages;
pub mod ports;
mod process;
mod random;
pub mod scope;
pub mod servers;
mod subprocess;
mod test_servers;
mod toolchain;

pub use error::Error;
