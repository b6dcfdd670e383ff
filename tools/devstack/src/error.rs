//! Errors of the development stack.

use std::{io, path::PathBuf, time::Duration};

/// A failed command of the development stack. The text ends with the remedy, where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The arguments don't fit the command.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// The command doesn't exist.
    #[error("no such command: {0}")]
    UnknownCommand(String),
    /// Processes are found through `/proc`, which only Linux has.
    #[error("./dev needs Linux: elsewhere, run docker compose up")]
    NotLinux,
    /// A program is missing.
    #[error("{program} not found: {remedy}")]
    ProgramMissing {
        /// The program's name.
        program: String,
        /// How to get it.
        remedy: &'static str,
    },
    /// A server isn't installed and can't be installed.
    #[error("{server} is not installed, and could not be: {remedy}")]
    ServerMissing {
        /// The server's name.
        server: &'static str,
        /// How to get it.
        remedy: &'static str,
    },
    /// The disk is nearly full.
    #[error("only {free_mb} MB are free on the disk of {directory}: make room for at least {needed_mb} MB")]
    DiskFull {
        /// The directory that needs the space.
        directory: PathBuf,
        /// Free megabytes (2²⁰ bytes).
        free_mb: u64,
        /// Megabytes needed.
        needed_mb: u64,
    },
    /// The argument isn't a port that a server can have.
    #[error("not a port: '{0}' (1 to 65533)")]
    InvalidPort(String),
    /// Another process listens on the port.
    #[error("port {port} is in use: {server} cannot listen on it")]
    PortInUse {
        port: u16,
        /// The server that needs it, with its directory.
        server: String,
    },
    /// Another process listens on the port of the console.
    #[error("port {0} is in use by another program: stop it, or choose another port: CATACLOUD_PORT=8090 ./dev up")]
    ConsolePortInUse(u16),
    /// No port was free.
    #[error("no free port between 20000 and 32000")]
    NoFreePort,
    /// The server of this directory runs already, on another port.
    #[error("{server} in {directory} runs already, on port {port}")]
    RunsElsewhere {
        /// The server's name.
        server: &'static str,
        directory: PathBuf,
        /// The port of the last start.
        port: String,
    },
    /// A server didn't become ready.
    #[error("{server} did not start in {directory}")]
    StartFailed {
        /// The server's name.
        server: &'static str,
        directory: PathBuf,
    },
    /// A server didn't stop.
    #[error("{server} in {directory} does not stop")]
    StopFailed {
        /// The server's name.
        server: &'static str,
        directory: PathBuf,
    },
    /// A process outlived SIGKILL.
    #[error("process {0} survived SIGKILL")]
    Unkillable(u32),
    /// Neither the directory nor the temporary directory is writable for Postgres' user.
    #[error("Postgres' user can write neither to {directory} nor to /tmp")]
    NotWritable { directory: PathBuf },
    /// A step failed and has printed its own output.
    #[error("{0}")]
    Failed(String),
    /// A gate of `test` or `lint` failed.
    #[error("failed at: {gate} (after {} s)", crate::console::tenths(*elapsed))]
    GateFailed {
        /// The gate's heading.
        gate: String,
        /// How long it ran.
        elapsed: Duration,
    },
    /// A signal asked the command to stop.
    #[error("interrupted by signal {0}")]
    Interrupted(u8),
    /// The operating system refused an operation.
    #[error("{operation} {path}: {source}")]
    Io {
        /// The operation, as in `write`.
        operation: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Returns a function that turns an I/O error into an [`Error::Io`], for `map_err`.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Returns the exit status of a command that failed with this error: 128 plus the signal, or 1.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted(signal) => signal.saturating_add(128),
            _ => 1,
        }
    }
}
