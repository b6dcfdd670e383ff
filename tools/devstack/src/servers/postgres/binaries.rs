//! Postgres' programs: found, installed, and run as the right user.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error,
    packages::{apt_install, as_root, is_root},
    subprocess::{discard_output, find_program, is_executable, output_of, succeeds},
};

pub(super) const NAME: &str = "Postgres";

/// The server's programs and the user that runs them: Postgres refuses to run as root.
pub(super) struct Binaries {
    directory: PathBuf,
    user: Option<User>,
}

struct User {
    name: &'static str,
    uid: u32,
    gid: u32,
}

impl Binaries {
    pub(super) fn require() -> Result<Self, Error> {
        let directory = match find_binaries() {
            Some(directory) => directory,
            None => {
                install()?;
                find_binaries().ok_or(Error::ServerMissing {
                    server: NAME,
                    remedy: "apt-get install postgresql, or set DATABASE_URL",
                })?
            }
        };
        let user = if is_root() { User::find("postgres").or_else(|| User::find("nobody")) } else { None };
        Ok(Self { directory, user })
    }

    /// Returns a command that runs one of the server's programs as the server's user.
    pub(super) fn command(&self, program: &str) -> Command {
        self.as_user(self.directory.join(program))
    }

    fn as_user(&self, program: impl AsRef<Path>) -> Command {
        let Some(user) = &self.user else { return Command::new(program.as_ref()) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", user.name)).arg(format!("--regid={}", user.gid));
        // The user may not be allowed into the current directory.
        command.args(["--init-groups", "--"]).arg(program.as_ref()).current_dir("/");
        command
    }

    /// Makes a file or directory the property of the server's user.
    pub(super) fn give_to_user(&self, path: &Path) -> Result<(), Error> {
        match &self.user {
            Some(user) => chown(path, Some(user.uid), None).map_err(Error::io("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// Makes a directory the property of the server's user. Returns whether that user can write to it, which also
    /// depends on the directories above.
    pub(super) fn claim(&self, directory: &Path) -> Result<bool, Error> {
        self.give_to_user(directory)?;
        Ok(self.user.is_none() || succeeds(discard_output(self.as_user("test").arg("-w").arg(directory)))?)
    }
}

impl User {
    fn find(name: &'static str) -> Option<Self> {
        let id = |option: &str| output_of(Command::new("id").args([option, name]))?.parse().ok();
        Some(Self { name, uid: id("-u")?, gid: id("-g")? })
    }
}

/// Returns the directory of the newest server programs. Debian keeps them out of `PATH`.
fn find_binaries() -> Option<PathBuf> {
    if let (Some(pg_ctl), Some(_)) = (find_program("pg_ctl"), find_program("initdb")) {
        return fs::canonicalize(pg_ctl).ok()?.parent().map(Path::to_owned);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    let complete = versions.filter(|version| {
        let binaries = version.join("bin");
        is_executable(&binaries.join("pg_ctl")) && is_executable(&binaries.join("initdb"))
    });
    complete.max_by_key(|version| version_numbers(version)).map(|version| version.join("bin"))
}

/// Parses the name of a directory like `9.6` or `15`.
fn version_numbers(directory: &Path) -> Vec<u32> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').map(|number| number.parse().unwrap_or_default()).collect()
}

fn install() -> Result<(), Error> {
    // Debian would create a cluster and start it on 5432. The file matters only during the installation.
    let drop_in = "/etc/postgresql-common/createcluster.d/catacloud.conf";
    let write = format!("mkdir -p \"${{0%/*}}\" && echo 'create_main_cluster = false' > {drop_in}");
    let mut forbid_cluster = as_root("sh");
    forbid_cluster.args(["-c", &write, drop_in]);
    // Without the file, an installation would occupy a port of the machine: leave it to the user.
    if is_root() || find_program("sudo").is_some() {
        if !succeeds(discard_output(&mut forbid_cluster))? {
            return Ok(());
        }
        let installed = apt_install(&["postgresql"]);
        succeeds(discard_output(as_root("rm").args(["-f", drop_in])))?;
        installed?;
    }
    Ok(())
}

/// Returns the version of the installed server, as in `PostgreSQL 15.4`.
pub(crate) fn version() -> String {
    let version = find_binaries().and_then(|directory| output_of(Command::new(directory.join("postgres")).arg("-V")));
    let number = version.as_deref().and_then(|text| text.split(' ').nth(2)).unwrap_or("of unknown version");
    format!("PostgreSQL {number}")
}

/// Returns the path of pgbench, Postgres' own benchmark.
pub(crate) fn find_pgbench() -> Result<PathBuf, Error> {
    let with_server = find_binaries().map(|directory| directory.join("pgbench")).filter(|path| is_executable(path));
    with_server
        .or_else(|| find_program("pgbench"))
        .ok_or(Error::ProgramMissing { program: "pgbench".into(), remedy: "apt-get install postgresql-contrib" })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::version_numbers;

    #[test]
    fn versions_are_ordered_by_number() {
        let newer = version_numbers(Path::new("/usr/lib/postgresql/15"));
        assert!(newer > version_numbers(Path::new("/usr/lib/postgresql/9.6")));
    }
}
