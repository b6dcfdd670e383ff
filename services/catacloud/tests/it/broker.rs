//! A Kafka broker for one test, which can be killed.

use std::path::PathBuf;

use devstack::servers::{Kafka, Server};
use epoch::testkit::free_ports;

pub(crate) struct Broker {
    kafka: Kafka,
    port: u16,
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start(directory: PathBuf) -> Self {
        let port = free_ports();
        let kafka = Kafka::new(directory).unwrap();
        let address = kafka.start(port).unwrap();
        Self { kafka, port, address }
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        self.kafka.kill().unwrap();
    }

    pub(crate) fn restart(&self) {
        self.kafka.start(self.port).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kafka.remove().unwrap();
    }
}
