//! Cargo tools that the gates need, compiled once into `.dev/cache/bin`.

use std::{fs, path::PathBuf};

use crate::{
    Error, checkout, console,
    subprocess::{find_program, is_executable, succeeds_in_group, write_output},
    toolchain::cargo,
};

/// A program from crates.io.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    name: &'static str,
    version: &'static str,
    /// Measured on two cores.
    build_time: &'static str,
}

pub(super) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", build_time: "3 minutes" };
pub(super) const CARGO_MACHETE: Tool = Tool { name: "cargo-machete", version: "0.9.2", build_time: "1 minute" };

/// Returns the path of a tool: the one in the cache, else the one in `PATH`, else it is compiled into the cache.
pub(super) fn require(tool: Tool) -> Result<PathBuf, Error> {
    let Tool { name, version, build_time } = tool;
    let cache = checkout::cache();
    let program = cache.join("bin").join(name);
    // The list that cargo keeps of the programs it has installed.
    let installed = fs::read_to_string(cache.join(".crates.toml")).unwrap_or_default();
    if is_executable(&program) && installed.contains(&format!("\"{name} {version} (")) {
        return Ok(program);
    }
    if let Some(program) = find_program(name) {
        return Ok(program);
    }
    console::report(format!("installing {name} {version} (compiles about {build_time} on two cores, once)"));
    checkout::create_directory(&cache)?;
    let log = cache.join(format!("{name}.log"));
    let mut install = cargo();
    install.args(["install", "--locked", "--root"]).arg(&cache).arg(format!("{name}@{version}"));
    if !succeeds_in_group(write_output(&mut install, &log)?)? {
        console::report_log_tail(&log);
        return Err(Error::Failed(format!("could not install {name} {version}")));
    }
    Ok(program)
}
