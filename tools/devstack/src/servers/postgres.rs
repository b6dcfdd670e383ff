//! Postgres from installed binaries.
//!
//! ```text
//! DIR/data        the cluster          DIR/server.log  its log
//! DIR/elsewhere   a link to the directory that holds both, if Postgres' user can't reach DIR
//! DIR/port        the port of the last start
//! ```

mod binaries;

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use self::binaries::{Binaries, NAME};
pub(crate) use self::binaries::{find_pgbench, version};
use super::{Server, ServerKind, name_with_directory, record_port, require_same_port, server_directory};
use crate::{
    Error, checkout, console, ports,
    process::{PidFile, any_works_in, wait_until},
    random,
    scope::Scope,
    subprocess::{discard_output, succeeds, write_output},
};

const USER: &str = "catacloud";
/// A socket's path has at most 107 characters, and Postgres adds its own file name.
const SOCKET_DIRECTORY_LIMIT: usize = 90;

/// A private Postgres cluster.
#[derive(Debug, Clone)]
pub struct Postgres {
    directory: PathBuf,
    shared_buffers: String,
    scope: Option<Scope>,
}

impl Postgres {
    /// Creates a handle of the cluster in `directory`, with `CATACLOUD_DEV_SHARED_BUFFERS` (default: 128MB) and the
    /// scope of this process.
    ///
    /// # Errors
    /// If the path can't be resolved.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let shared_buffers = env::var("CATACLOUD_DEV_SHARED_BUFFERS").ok().filter(|size| !size.is_empty());
        Ok(Self {
            directory: server_directory(directory)?,
            shared_buffers: shared_buffers.unwrap_or_else(|| "128MB".to_owned()),
            scope: Scope::current(),
        })
    }

    /// Makes the server part of a scope.
    #[must_use]
    pub fn with_scope(mut self, scope: &Scope) -> Self {
        self.scope = Some(scope.clone());
        self
    }

    /// Sets `shared_buffers` for the next start, as in `512MB`.
    #[must_use]
    pub fn with_shared_buffers(mut self, size: impl Into<String>) -> Self {
        self.shared_buffers = size.into();
        self
    }

    fn home(&self) -> PathBuf {
        let link = self.directory.join("elsewhere");
        if link.is_dir() { fs::canonicalize(&link).unwrap_or(link) } else { self.directory.clone() }
    }

    /// Returns a directory for the cluster that the server's user can write to: the handle's own if possible.
    fn make_home(&self, binaries: &Binaries) -> Result<PathBuf, Error> {
        checkout::create_directory(&self.directory)?;
        let home = self.home();
        if binaries.claim(&home)? {
            return Ok(home);
        }
        for base in [env::temp_dir(), PathBuf::from("/tmp")] {
            let home = base.join(format!("catacloud-postgres.{}", random::hex::<6>()?));
            fs::DirBuilder::new().mode(0o700).create(&home).map_err(Error::io("create", &home))?;
            if binaries.claim(&home)? {
                let link = self.directory.join("elsewhere");
                checkout::delete(&link)?;
                symlink(&home, &link).map_err(Error::io("create", link))?;
                return Ok(home);
            }
            checkout::delete(&home)?;
        }
        Err(Error::NotWritable { directory: self.directory.clone() })
    }

    fn init(&self, binaries: &Binaries, home: &Path) -> Result<(), Error> {
        let (data, new, log) = (home.join("data"), home.join("data.new"), home.join("initdb.log"));
        if data.is_dir() {
            return Ok(());
        }
        // Renamed when complete, so that an interrupted run leaves no partial cluster.
        checkout::delete(&new)?;
        let mut initdb = binaries.command("initdb");
        initdb.arg("-D").arg(&new).args(["-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        if !succeeds(write_output(&mut initdb, &log)?)? {
            console::report_log_tail(&log);
            return Err(Error::Failed(format!("initdb failed in {}", home.display())));
        }
        let settings = new.join("postgresql.conf");
        let file = fs::OpenOptions::new().append(true).open(&settings);
        file.and_then(|mut file| file.write_all(b"include_if_exists = 'catacloud.conf'\n"))
            .and_then(|()| fs::rename(&new, &data))
            .map_err(Error::io("write", settings))
    }

    fn configure(&self, binaries: &Binaries, home: &Path, port: u16) -> Result<(), Error> {
        let mut sockets = home.display().to_string();
        if sockets.chars().count() + port.to_string().len() > SOCKET_DIRECTORY_LIMIT {
            // The server would not start: without a directory it listens on TCP only.
            sockets.clear();
        }
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             shared_buffers = '{}'\nfsync = on\n",
            sockets.replace('\'', "''"),
            self.shared_buffers,
        );
        let path = home.join("data/catacloud.conf");
        checkout::write(&path, settings)?;
        binaries.give_to_user(&path)
    }

    fn end(&self, mode: &str) -> Result<(), Error> {
        let home = self.home();
        if !is_running(&home) {
            return Ok(());
        }
        let binaries = Binaries::require()?;
        for mode in [mode, "immediate"] {
            let mut stop = binaries.command("pg_ctl");
            stop.args(["stop", "-w", "-t", "30", "-m", mode, "-D"]).arg(home.join("data"));
            if succeeds(discard_output(&mut stop))? {
                return Ok(());
            }
        }
        Err(Error::StopFailed { server: NAME, directory: self.directory.clone() })
    }
}

impl Server for Postgres {
    fn start(&self, port: u16) -> Result<String, Error> {
        let url = format!("postgres://{USER}@127.0.0.1:{port}/postgres");
        let binaries = Binaries::require()?;
        let home = self.make_home(&binaries)?;
        if let Some(scope) = &self.scope {
            scope.record(ServerKind::Postgres, &self.directory, &home)?;
        }
        if is_running(&home) {
            require_same_port(NAME, &self.directory, port)?;
            return Ok(url);
        }
        ports::require_closed(port, &name_with_directory(NAME, &self.directory))?;
        self.init(&binaries, &home)?;
        self.configure(&binaries, &home, port)?;
        delete_lock_files_of_crash(&home)?;
        record_port(&self.directory, port)?;
        let log = home.join("server.log");
        let mut start = binaries.command("pg_ctl");
        start.args(["start", "-w", "-t", "60", "-D"]).arg(home.join("data")).arg("-l").arg(&log);
        if let Some(scope) = &self.scope {
            scope.mark(&mut start);
        }
        if !succeeds(discard_output(&mut start))? {
            console::report_log_tail(&log);
            return Err(Error::StartFailed { server: NAME, directory: self.directory.clone() });
        }
        Ok(url)
    }

    fn stop(&self) -> Result<(), Error> {
        self.end("fast")
    }

    fn kill(&self) -> Result<(), Error> {
        self.end("immediate")
    }

    fn remove(&self) -> Result<(), Error> {
        let home = self.home();
        self.kill()?;
        checkout::delete(&home)?;
        checkout::delete(&self.directory)
    }
}

fn is_running(home: &Path) -> bool {
    let data = home.join("data");
    PidFile::new(data.join("postmaster.pid"), format!("-D {}", data.display())).running().is_some()
}

/// Deletes the lock files of a server that crashed: Postgres doesn't start if the process in them lives, which by now
/// may be any program of the same user. The locks protect the cluster from two servers, so no process may work in it.
fn delete_lock_files_of_crash(home: &Path) -> Result<(), Error> {
    let data = home.join("data");
    let pid_file = data.join("postmaster.pid");
    if !pid_file.is_file() {
        return Ok(());
    }
    if !wait_until(Duration::from_secs(20), || !any_works_in(&data))? {
        return Err(Error::Failed(format!("processes of a crashed Postgres do not end in {}", home.display())));
    }
    checkout::delete(&pid_file)?;
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            checkout::delete(&entry.path())?;
        }
    }
    Ok(())
}
