//! Debian packages, installed where that is allowed.

use std::{path::Path, process::Command};

use crate::{
    Error, checkout, console,
    subprocess::{append_output, discard_output, find_program, succeeds, write_output},
};

/// Installs Debian packages as root, or where sudo asks for no password. Returns false if it can't.
pub(crate) fn apt_install(packages: &[&str]) -> Result<bool, Error> {
    if find_program("apt-get").is_none() || !may_administer()? {
        return Ok(false);
    }
    checkout::create_directory(&checkout::cache())?;
    let log = checkout::cache().join("apt.log");
    console::report(format!("installing {}", packages.join(" ")));
    let install = || {
        let mut command = apt_get();
        command.arg("install").args(packages);
        command
    };
    // The package lists may be missing or old: they are fetched only when the installation fails without.
    if succeeds(write_output(&mut install(), &log)?)? {
        return Ok(true);
    }
    Ok(succeeds(append_output(apt_get().arg("update"), &log)?)? && succeeds(append_output(&mut install(), &log)?)?)
}

/// Returns a command that runs `program` as root.
pub(crate) fn as_root(program: impl AsRef<Path>) -> Command {
    if is_root() {
        return Command::new(program.as_ref());
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program.as_ref());
    command
}

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn may_administer() -> Result<bool, Error> {
    if is_root() {
        return Ok(true);
    }
    Ok(find_program("sudo").is_some() && succeeds(discard_output(Command::new("sudo").args(["-n", "true"])))?)
}

fn apt_get() -> Command {
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "--no-install-recommends"]);
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}
