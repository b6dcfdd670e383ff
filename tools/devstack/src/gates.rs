//! The gates of `./dev test` and `./dev lint`. Each prints its heading, its output and its time, and the first failure
//! ends the run.

mod tools;

use std::{
    ffi::OsString,
    fs,
    io::Read,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Error, checkout, console,
    packages::apt_install,
    subprocess::{discard_output, find_program, output_of, succeeds, succeeds_in_group},
    toolchain::cargo,
};

/// Runs gates in one environment.
pub(crate) struct Gates {
    command: &'static str,
    environment: Vec<(&'static str, OsString)>,
}

impl Gates {
    /// Creates the gates of `./dev COMMAND`; all programs run with these environment variables.
    pub(crate) fn new(command: &'static str, environment: Vec<(&'static str, OsString)>) -> Self {
        Self { command, environment }
    }

    /// Adds environment variables for later gates.
    pub(crate) fn extend_environment(&mut self, variables: impl IntoIterator<Item = (&'static str, OsString)>) {
        self.environment.extend(variables);
    }

    /// Runs a gate that is more than one program.
    pub(crate) fn timed<T>(&self, heading: &str, gate: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let began = Instant::now();
        console::print(format!("\n── {heading}"));
        let result = gate()?;
        print_time(heading, began.elapsed());
        Ok(result)
    }

    pub(crate) fn format(&self) -> Result<(), Error> {
        self.run("format", cargo().args(["fmt", "--all", "--check"]))
    }

    pub(crate) fn lints(&self) -> Result<(), Error> {
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        self.run("lints", cargo().args(clippy))
    }

    /// Checks the prose, import circles and commit subjects by the package `checks`, if the workspace has it.
    pub(crate) fn checks(&self) -> Result<(), Error> {
        if !checkout::root().join("tools/checks/Cargo.toml").is_file() {
            return Ok(());
        }
        self.run("checks", cargo().args(["run", "-q", "-p", "checks", "--locked", "--", "all"]))
    }

    pub(crate) fn shell_scripts(&self) -> Result<(), Error> {
        if find_program("shellcheck").is_none() && !apt_install(&["shellcheck"])? {
            if is_ci() {
                let remedy = "apt-get install shellcheck";
                return Err(Error::ProgramMissing { program: "shellcheck".to_owned(), remedy });
            }
            console::print("\n── shell scripts: not checked (apt-get install shellcheck)");
            return Ok(());
        }
        let root = checkout::root();
        let mut shellcheck = Command::new("shellcheck");
        shellcheck.arg("--").args(shell_scripts(&root)).current_dir(root);
        self.run("shell scripts", &mut shellcheck)
    }

    /// Lints `docs/openapi.json` and compiles a TypeScript client against its types.
    pub(crate) fn api_contract(&self) -> Result<(), Error> {
        if find_program("npm").is_none() && !apt_install(&["nodejs", "npm"])? {
            if is_ci() {
                return Err(Error::ProgramMissing { program: "npm".to_owned(), remedy: "apt-get install nodejs npm" });
            }
            console::print("\n── API contract: not checked (apt-get install nodejs npm)");
            return Ok(());
        }
        let directory = checkout::root().join("tools/openapi");
        let npm = || {
            let mut npm = Command::new("npm");
            npm.current_dir(&directory).env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
            npm
        };
        self.run("API contract: packages", npm().args(["ci", "--no-audit", "--no-fund"]))?;
        self.run("API contract", npm().args(["run", "--silent", "check"]))
    }

    pub(crate) fn unused_dependencies(&self) -> Result<(), Error> {
        let machete = tools::require(tools::CARGO_MACHETE)?;
        self.run("unused dependencies", Command::new(machete).arg(".").current_dir(checkout::root()))
    }

    pub(crate) fn documentation(&self) -> Result<(), Error> {
        let mut doc = cargo();
        doc.args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
        self.run("documentation", &mut doc)
    }

    pub(crate) fn build(&self) -> Result<(), Error> {
        self.run("build", cargo().args(["build", "--workspace", "--bins", "--locked"]))
    }

    /// Runs `cargo test` with these arguments.
    pub(crate) fn tests(&self, arguments: &[String]) -> Result<(), Error> {
        self.run("tests", cargo().arg("test").args(arguments))
    }

    /// Checks `docker-compose.yml` where Docker's compose plugin is installed.
    pub(crate) fn compose_file(&self) -> Result<(), Error> {
        let mut version = Command::new("docker");
        version.args(["compose", "version"]);
        if find_program("docker").is_none() || !succeeds(discard_output(&mut version))? {
            return Ok(());
        }
        let mut docker = Command::new("docker");
        docker.args(["compose", "-f"]).arg(checkout::root().join("docker-compose.yml")).args(["config", "-q"]);
        self.run("docker-compose.yml", &mut docker)
    }

    /// Checks licences, sources, bans and security advisories of all dependencies. Returns the list of performed checks.
    pub(crate) fn dependencies(&self) -> Result<&'static str, Error> {
        let deny = tools::require(tools::CARGO_DENY)?;
        let deny = || {
            let mut command = Command::new(&deny);
            command.current_dir(checkout::root());
            command
        };
        if succeeds(discard_output(deny().args(["fetch", "db"])))? {
            self.run("dependencies", deny().arg("check"))?;
            return Ok("licences, sources, bans and advisories");
        }
        console::print("\nthe advisory database could not be fetched: checking bans, licences and sources only");
        self.run("dependencies", deny().args(["check", "bans", "licenses", "sources"]))?;
        Ok("licences, sources and bans; the advisory database could not be fetched")
    }

    fn run(&self, heading: &str, command: &mut Command) -> Result<(), Error> {
        let began = Instant::now();
        console::print(format!("\n── {heading}"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let succeeded = succeeds_in_group(command)?;
        let elapsed = began.elapsed();
        if !succeeded {
            let time = console::tenths(elapsed);
            console::print(format!("\ndev {}: failed at: {heading} (after {time} s)", self.command));
            return Err(Error::GateFailed { gate: heading.to_owned(), elapsed });
        }
        print_time(heading, elapsed);
        Ok(())
    }
}

/// Returns whether this is a hosted run, which has all it needs: there a missing tool or server is a failure, because a
/// quiet downgrade would hide that it is broken.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

fn print_time(heading: &str, elapsed: Duration) {
    console::print(format!("── {heading}: {} s", console::tenths(elapsed)));
}

/// Returns the tracked files that start with the name of a shell, as in `#!/bin/sh`.
fn shell_scripts(root: &Path) -> Vec<String> {
    let listing = output_of(Command::new("git").arg("ls-files").current_dir(root));
    // Without git, as in an archive of the sources, only the known scripts are checked.
    let listing = listing.unwrap_or_else(|| "dev\n.ci/run".to_owned());
    listing.lines().filter(|path| is_shell_script(&root.join(path))).map(str::to_owned).collect()
}

fn is_shell_script(path: &Path) -> bool {
    let mut start = [0; 64];
    let length = fs::File::open(path).and_then(|mut file| file.read(&mut start)).unwrap_or_default();
    let start = String::from_utf8_lossy(&start[..length]).into_owned();
    let first = start.lines().next().unwrap_or_default();
    first.starts_with("#!") && first.ends_with("sh")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Gates, shell_scripts};
    use crate::{Error, checkout};

    #[test]
    fn shell_scripts_are_found_by_their_first_line() {
        let scripts = shell_scripts(&checkout::root());
        assert!(scripts.contains(&"dev".to_owned()), "{scripts:?}");
        assert!(scripts.contains(&".ci/run".to_owned()), "{scripts:?}");
        assert!(!scripts.iter().any(|path| path.ends_with(".rs")), "{scripts:?}");
    }

    #[test]
    fn failed_gate_is_named_with_its_environment_set() {
        let gates = Gates::new("test", vec![("GATE_VARIABLE", "set".into())]);
        gates.run("passes", Command::new("sh").args(["-c", "test \"$GATE_VARIABLE\" = set"])).unwrap();
        let error = gates.run("fails", &mut Command::new("false")).unwrap_err();
        assert!(matches!(&error, Error::GateFailed { gate, .. } if gate == "fails"), "{error}");
        assert_eq!(error.exit_status(), 1);
    }
}
