//! A Kafka broker for one test, which can be killed.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use epoch::testkit::free_ports;

pub(crate) struct Broker {
    directory: PathBuf,
    port: u16,
    pub(crate) address: String,
}

/// Runs the `dev` script, which manages test servers, and returns its output.
pub(crate) fn dev(arguments: &[&str]) -> String {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev").to_owned();
    let script = std::env::var("CATACLOUD_DEV").unwrap_or(default);
    let output = Command::new(script).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "dev {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Broker {
    pub(crate) fn start(directory: PathBuf) -> Self {
        let port = free_ports();
        let address = dev(&["kafka", "start", directory.to_str().unwrap(), &port.to_string()]);
        Self { directory, port, address }
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        dev(&["kafka", "kill", self.directory.to_str().unwrap()]);
    }

    pub(crate) fn restart(&self) {
        dev(&["kafka", "start", self.directory.to_str().unwrap(), &self.port.to_string()]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        dev(&["kafka", "remove", self.directory.to_str().unwrap()]);
    }
}
