//! Scopes: everything that one run has started.
//!
//! The directory of the run is in `CATACLOUD_DEV_SCOPE` of every process that it starts, directly or not. The end of the
//! run finds them by it, also the leftovers of a killed test: in a session of their own, or without their parent.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{Error, checkout, process, servers::ServerKind};

/// The environment variable that holds the directory of the scope.
pub const VARIABLE: &str = "CATACLOUD_DEV_SCOPE";

const ROUNDS: u32 = 40;
/// SIGTERM comes first, because a Postgres that is killed leaves its shared memory.
const ROUNDS_OF_SIGTERM: u32 = 19;
const ROUND: Duration = Duration::from_millis(100);

/// One run of `up`, `test` or `bench`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    directory: PathBuf,
}

impl Scope {
    /// Creates the directory of a scope that this process owns.
    ///
    /// # Errors
    /// If the directory can't be created.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        checkout::create_directory(&directory)?;
        let id = std::process::id();
        let time = process::start_time(id).unwrap_or_default();
        checkout::write(&directory.join("owner"), format!("{id} {time}\n"))?;
        Ok(Self { directory })
    }

    /// Returns the scope of an existing directory.
    pub(crate) fn of(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Returns the scope that this process was started in.
    #[must_use]
    pub fn current() -> Option<Self> {
        env::var_os(VARIABLE).filter(|directory| !directory.is_empty()).map(Self::of)
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the process that the command starts, and all its children, part of the scope.
    pub fn mark<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(VARIABLE, &self.directory)
    }

    /// Records a server for [`Scope::close`], as the directory that a test chose may be deleted before the server ends.
    /// `home` is the directory of its data, which differs if Postgres' user can't write to `directory`.
    pub(crate) fn record(&self, kind: ServerKind, directory: &Path, home: &Path) -> Result<(), Error> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        let path = self.directory.join("servers");
        let line = format!("{}\t{}\t{}\n", kind.name(), directory.display(), home.display());
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        // One write, as tests record servers at the same time.
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(Error::io("write", path))
    }

    /// Returns whether the process that opened the scope still runs.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        let owner = fs::read_to_string(self.directory.join("owner")).unwrap_or_default();
        let mut words = owner.split_whitespace();
        let (Some(Ok(id)), Some(Ok(time))) = (words.next().map(str::parse), words.next().map(str::parse::<u64>)) else {
            return false;
        };
        process::start_time(id) == Some(time)
    }

    /// Ends all processes of the scope except this one, within four seconds.
    pub fn end_processes(&self) {
        for round in 0..ROUNDS {
            let ids = self.processes();
            if ids.is_empty() {
                return;
            }
            let signal = if round < ROUNDS_OF_SIGTERM { Signal::TERM } else { Signal::KILL };
            for id in ids {
                process::send(id, signal);
            }
            thread::sleep(ROUND);
        }
    }

    /// Stops all servers and processes of the scope and deletes its data and its directory.
    ///
    /// # Errors
    /// If the directory can't be deleted.
    pub fn close(&self) -> Result<(), Error> {
        for server in self.recorded_servers() {
            server.remove();
        }
        self.end_processes();
        checkout::delete(&self.directory)
    }

    fn processes(&self) -> Vec<u32> {
        let own = std::process::id();
        process::all().into_iter().filter(|id| *id != own && self.contains(*id)).collect()
    }

    /// Returns whether a process belongs to this scope, or to one in its directory, which a test may have opened.
    fn contains(&self, id: u32) -> bool {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let prefix = format!("{VARIABLE}=");
        environment.split(|byte| *byte == 0).any(|variable| {
            let directory = variable.strip_prefix(prefix.as_bytes());
            directory.is_some_and(|directory| Path::new(OsStr::from_bytes(directory)).starts_with(&self.directory))
        })
    }

    fn recorded_servers(&self) -> Vec<RecordedServer> {
        let text = fs::read_to_string(self.directory.join("servers")).unwrap_or_default();
        let mut servers: Vec<RecordedServer> = text.lines().filter_map(RecordedServer::parse).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

/// A line of [`Scope::record`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RecordedServer {
    kind: ServerKind,
    directory: PathBuf,
    home: PathBuf,
}

impl RecordedServer {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (kind, directory, home) = (ServerKind::parse(fields.next()?)?, fields.next()?, fields.next()?);
        Some(Self { kind, directory: directory.into(), home: home.into() })
    }

    /// Stops the server and deletes its data. A failure isn't reported: [`Scope::close`] kills the rest.
    fn remove(&self) {
        let _ = self.kind.open(&self.home).and_then(|server| server.kill());
        let _ = checkout::delete(&self.home);
        let _ = checkout::delete(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        process::{Child, Command},
        time::{Duration, Instant},
    };

    use super::{RecordedServer, Scope};
    use crate::servers::ServerKind;

    fn wait_for(child: &mut Child) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    #[test]
    fn scope_close_kills_stray_children() {
        let parent = tempfile::tempdir().unwrap();
        let scope = Scope::open(parent.path().join("test-1")).unwrap();
        // The grandchild is in a session of its own, ignores SIGTERM, and has lost its parent.
        let script = "setsid sh -c 'trap \"\" TERM; echo $$ > \"$0\"; while :; do sleep 0.1; done' \"$1\" & exit 0";
        let id_file = scope.directory().join("id");
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(&id_file);
        assert!(scope.mark(&mut shell).status().unwrap().success());
        let mut outsider = Command::new("sleep").arg("60").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let id: u32 = loop {
            if let Ok(id) = fs::read_to_string(&id_file).unwrap_or_default().trim().parse() {
                break id;
            }
            assert!(Instant::now() < deadline, "the grandchild did not start");
        };
        assert!(scope.processes().contains(&id));
        scope.close().unwrap();
        assert_eq!(scope.processes(), Vec::<u32>::new());
        assert!(!scope.directory().exists());
        assert!(outsider.try_wait().unwrap().is_none(), "a process outside the scope was ended");
        outsider.kill().unwrap();
        assert!(wait_for(&mut outsider));
    }

    #[test]
    fn scope_contains_processes_of_nested_scopes() {
        let parent = tempfile::tempdir().unwrap();
        let scope = Scope::open(parent.path().join("test-1")).unwrap();
        let sibling = Scope::open(parent.path().join("test-11")).unwrap();
        let nested = Scope::open(scope.directory().join("tmp/test-2")).unwrap();
        let mut child = nested.mark(Command::new("sleep").arg("60")).spawn().unwrap();
        // The kernel sets the environment a moment after the start.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !nested.contains(child.id()) && Instant::now() < deadline {}
        assert!(scope.contains(child.id()));
        assert!(!sibling.contains(child.id()));
        scope.close().unwrap();
        assert!(wait_for(&mut child));
    }

    #[test]
    fn scope_is_owned_until_its_process_ends() {
        let directory = tempfile::tempdir().unwrap();
        let scope = Scope::open(directory.path()).unwrap();
        assert!(scope.is_owned());
        let owner = fs::read_to_string(directory.path().join("owner")).unwrap();
        let (id, time) = owner.trim().split_once(' ').unwrap();
        let recycled = format!("{id} {}\n", time.parse::<u64>().unwrap() + 1);
        for owner in [recycled.as_str(), "", "x y\n", "4294967295 1\n"] {
            fs::write(directory.path().join("owner"), owner).unwrap();
            assert!(!scope.is_owned(), "{owner:?}");
        }
    }

    #[test]
    fn recorded_servers_are_read_once_each() {
        let directory = tempfile::tempdir().unwrap();
        let scope = Scope::open(directory.path()).unwrap();
        let (path, home) = (Path::new("/tmp/a b"), Path::new("/tmp/c"));
        scope.record(ServerKind::Postgres, path, home).unwrap();
        scope.record(ServerKind::Postgres, path, home).unwrap();
        let expected = RecordedServer { kind: ServerKind::Postgres, directory: path.into(), home: home.into() };
        assert_eq!(scope.recorded_servers(), [expected]);
    }

    #[test]
    fn scope_close_deletes_data_of_recorded_servers() {
        let parent = tempfile::tempdir().unwrap();
        let scope = Scope::open(parent.path().join("test-1")).unwrap();
        let data = parent.path().join("elsewhere");
        fs::create_dir(&data).unwrap();
        scope.record(ServerKind::RabbitMq, &data, &data).unwrap();
        scope.close().unwrap();
        assert!(!data.exists());
    }
}
