//! The stack of `up`: its lock, its files, and its end.

use std::{fs, path::PathBuf, time::Duration};

use super::up::Catacloud;
use crate::{
    Error, checkout, console,
    process::wait_until,
    scope::Scope,
    servers::{Kafka, Postgres, Server, redpanda},
};

/// Excludes other runs of `up` and `down` while it lives.
pub(crate) struct UpLock {
    _file: fs::File,
}

impl UpLock {
    pub(crate) fn acquire() -> Result<Self, Error> {
        checkout::create_directory(&checkout::dev())?;
        let path = checkout::dev().join("up.lock");
        let file = fs::File::create(&path).map_err(Error::io("create", path))?;
        if file.try_lock().is_err() {
            console::report("another ./dev is bringing Catacloud up or down: waiting for it");
            while !wait_until(Duration::from_secs(3_600), || file.try_lock().is_ok())? {}
        }
        Ok(Self { _file: file })
    }
}

/// Returns the file with the last lines of a successful `up`.
pub(crate) fn summary_file() -> PathBuf {
    checkout::up().join("summary")
}

/// Returns the file with the address and the keys, for scripts.
pub(crate) fn environment_file() -> PathBuf {
    checkout::up().join("env")
}

/// Stops everything that `up` started and keeps its data. Catacloud stops first, so that it can finish its work.
pub(crate) fn stop() -> Result<(), Error> {
    let up = checkout::up();
    if !up.is_dir() {
        return Ok(());
    }
    Catacloud::installed().stop(Duration::from_secs(20))?;
    Kafka::new(up.join("kafka"))?.stop()?;
    redpanda::stop()?;
    Postgres::new(up.join("postgres"))?.stop()?;
    Scope::of(&up).end_processes();
    checkout::delete(&summary_file())?;
    checkout::delete(&environment_file())
}
