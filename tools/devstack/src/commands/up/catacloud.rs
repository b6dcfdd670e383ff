//! The Catacloud process of `up`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    bus::{self, Bus},
    secrets::Secrets,
};
use crate::{
    Error, checkout, console, http, ports,
    process::{PidFile, wait_while_running},
    scope::Scope,
    subprocess::{append_output, in_own_session, start},
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// The process of this checkout: its program, its process id and its port are in `.dev/up`.
pub(crate) struct Catacloud {
    /// The words of the command line by which a process is recognized, of the start that wrote them.
    words: Option<String>,
    program: PathBuf,
}

impl Catacloud {
    /// Creates a handle of a process to start.
    pub(super) fn new(program: PathBuf) -> Self {
        Self { words: Some(format!("{} all", program.display())), program }
    }

    /// Creates a handle of the process that an earlier command has started.
    pub(crate) fn installed() -> Self {
        let words = fs::read_to_string(file("words")).ok().map(|words| words.trim_end().to_owned());
        Self { words: words.filter(|words| !words.is_empty()), program: PathBuf::new() }
    }

    /// Returns the path of its log.
    pub(super) fn log() -> PathBuf {
        file("log")
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns whether the process runs and `/readyz` is answered with 200.
    pub(crate) fn is_ready(&self) -> bool {
        let port = fs::read_to_string(file("port")).ok().and_then(|port| ports::parse(port.trim()).ok());
        self.is_running() && port.is_some_and(|port| http::is_ok(port, "/readyz"))
    }

    /// Stops the process; kills it after `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> Result<(), Error> {
        self.pid_file().map_or(Ok(()), |file| file.terminate(grace))
    }

    /// Starts the process and waits until it is ready.
    pub(super) fn start(
        &self,
        port: u16,
        database_url: &str,
        bus: &Bus,
        secrets: &Secrets,
        scope: &Scope,
    ) -> Result<(), Error> {
        console::report("starting Catacloud");
        let (log, data) = (Self::log(), checkout::up().join("data"));
        checkout::create_directory(&data)?;
        if log.is_file() {
            let earlier = file("log.1");
            fs::rename(&log, &earlier).map_err(Error::io("write", earlier))?;
        }
        checkout::write(&file("words"), format!("{} all\n", self.program.display()))?;
        checkout::write(&file("port"), format!("{port}\n"))?;
        // A shell ignores SIGINT in its background commands, and their children would ignore it too.
        let mut command = in_own_session("env");
        command.arg("--default-signal=INT,QUIT").arg(&self.program).arg("all");
        // The process sees only the chosen bus.
        for variable in bus::VARIABLES {
            command.env_remove(variable);
        }
        let (name, value) = bus.variable();
        command.env(name, value).env("DATABASE_URL", database_url);
        command.env("CATACLOUD_LISTEN", format!("127.0.0.1:{port}")).env("CATACLOUD_DATA_DIR", data);
        command.env("CATACLOUD_SECRET", secrets.secret()).env("CATACLOUD_ADMIN_KEY", secrets.admin_key());
        scope.mark(&mut command);
        let mut process = start(append_output(&mut command, &log)?)?;
        checkout::write(&file("pid"), format!("{}\n", process.id()))?;
        if wait_while_running(&mut process, START_LIMIT, || self.is_ready())? {
            return Ok(());
        }
        console::report_log_tail(&log);
        let log = checkout::relative(&log);
        Err(Error::Failed(if self.is_running() {
            format!("Catacloud was not ready within {} s; its log: {log}", START_LIMIT.as_secs())
        } else {
            format!("Catacloud ended before it was ready; its log: {log}")
        }))
    }

    fn is_running(&self) -> bool {
        self.pid_file().is_some_and(|file| file.running().is_some())
    }

    fn pid_file(&self) -> Option<PidFile> {
        self.words.as_ref().map(|words| PidFile::new(file("pid"), words))
    }
}

fn file(ending: &str) -> PathBuf {
    checkout::up().join(format!("catacloud.{ending}"))
}
