//! Programs and disk space that builds need.

use std::{env, path::PathBuf, process::Command};

use crate::{
    Error, checkout,
    subprocess::{find_program, output_of, succeeds},
};

const MINIMUM_FREE_MB: u64 = 2 * 1024;

/// Returns a `cargo` command that runs at the root of the checkout, where rustup finds `rust-toolchain.toml`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(checkout::root());
    command
}

/// Checks that Rust, a C compiler and make are there.
pub(crate) fn require_rust() -> Result<(), Error> {
    require("cargo", "install Rust from https://rustup.rs and run this again")?;
    let compiler = env::var("CC").ok().filter(|compiler| !compiler.is_empty()).unwrap_or_else(|| "cc".to_owned());
    require(&compiler, "apt-get install gcc make, and run this again")?;
    require("make", "apt-get install make, and run this again")
}

/// Checks that rustfmt and clippy are there, and lets rustup install them if they aren't.
pub(crate) fn require_components() -> Result<(), Error> {
    let is_there = |tool: &str| output_of(cargo().args([tool, "--version"])).is_some();
    if is_there("fmt") && is_there("clippy") {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rustfmt", "clippy"]).current_dir(checkout::root()).stdout(std::io::stderr());
    if find_program("rustup").is_some() && succeeds(&mut rustup)? {
        return Ok(());
    }
    Err(Error::ProgramMissing { program: "rustfmt or clippy".into(), remedy: "rustup component add rustfmt clippy" })
}

/// Checks that the disk of the checkout has room for a build.
pub(crate) fn require_disk() -> Result<(), Error> {
    let directory = checkout::dev();
    checkout::create_directory(&directory)?;
    let statistics = rustix::fs::statvfs(&directory).map_err(|source| Error::Io {
        operation: "measure",
        path: directory.clone(),
        source: source.into(),
    })?;
    let free_mb = statistics.f_bavail.saturating_mul(statistics.f_frsize) / (1024 * 1024);
    if free_mb < MINIMUM_FREE_MB {
        return Err(Error::DiskFull { directory: checkout::root(), free_mb, needed_mb: MINIMUM_FREE_MB });
    }
    Ok(())
}

/// Returns the directory into which cargo builds the workspace.
pub(crate) fn target_directory() -> PathBuf {
    let metadata = output_of(cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    metadata.as_deref().and_then(parse_target_directory).unwrap_or_else(|| checkout::root().join("target"))
}

fn parse_target_directory(metadata: &str) -> Option<PathBuf> {
    let (_, rest) = metadata.split_once("\"target_directory\":\"")?;
    rest.split_once('"').map(|(path, _)| PathBuf::from(path))
}

fn require(program: &str, remedy: &'static str) -> Result<(), Error> {
    // As in CC=/usr/bin/clang or CC="ccache gcc".
    let name = program.split(' ').next().unwrap_or(program);
    let is_there = if name.contains('/') { PathBuf::from(name).exists() } else { find_program(name).is_some() };
    if is_there { Ok(()) } else { Err(Error::ProgramMissing { program: program.to_owned(), remedy }) }
}

#[cfg(test)]
mod tests {
    use super::{parse_target_directory, require};

    #[test]
    fn target_directory_is_read_from_metadata() {
        let metadata = r#"{"packages":[],"target_directory":"/x/target","build_directory":"/x/target"}"#;
        assert_eq!(parse_target_directory(metadata), Some("/x/target".into()));
        assert_eq!(parse_target_directory("{}"), None);
    }

    #[test]
    fn missing_program_is_an_error_with_its_remedy() {
        require("sh", "").unwrap();
        let error = require("no-such-program", "install it").unwrap_err();
        assert_eq!(error.to_string(), "no-such-program not found: install it");
    }
}
