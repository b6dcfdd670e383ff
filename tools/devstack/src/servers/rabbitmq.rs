//! RabbitMQ from installed binaries.
//!
//! ```text
//! DIR/data         its database          DIR/log         its logs
//! DIR/home         its Erlang cookie     DIR/server.log  its output before it has logs
//! DIR/pid, DIR/epmd.pid, DIR/port
//! ```
//!
//! A node on PORT needs a name service, epmd, which is a private one on PORT+1, and PORT+2 for `rabbitmqctl`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use super::{Server, ServerKind, name_with_directory, record_port, require_same_port, server_directory};
use crate::{
    Error, checkout, console,
    packages::{apt_install, as_root},
    ports,
    process::{PidFile, wait_until, wait_while_running},
    scope::Scope,
    subprocess::write_output,
    subprocess::{append_output, discard_output, find_program, in_own_session, is_executable, start, succeeds},
};

const NAME: &str = "RabbitMQ";
const START_LIMIT: Duration = Duration::from_secs(90);

/// A private RabbitMQ node.
#[derive(Debug, Clone)]
pub struct RabbitMq {
    directory: PathBuf,
    certificates: Option<PathBuf>,
    scope: Option<Scope>,
}

impl RabbitMq {
    /// Creates a handle of the node in `directory`, with the certificates of `CATACLOUD_DEV_RABBITMQ_TLS` (default:
    /// none, plain TCP) and the scope of this process.
    ///
    /// # Errors
    /// If the path can't be resolved.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let certificates = env::var_os("CATACLOUD_DEV_RABBITMQ_TLS").filter(|directory| !directory.is_empty());
        let certificates = certificates.map(PathBuf::from);
        Ok(Self { directory: server_directory(directory)?, certificates, scope: Scope::current() })
    }

    /// Makes the server part of a scope.
    #[must_use]
    pub fn with_scope(mut self, scope: &Scope) -> Self {
        self.scope = Some(scope.clone());
        self
    }

    /// Makes the node accept TLS only, with `certificate.pem` (for localhost) and `key.pem` of a directory.
    #[must_use]
    pub fn with_tls(mut self, certificates: impl Into<PathBuf>) -> Self {
        self.certificates = Some(certificates.into());
        self
    }

    fn words(&self) -> String {
        format!("-catacloud_dir {}", self.directory.display())
    }

    fn pid_file(&self) -> PidFile {
        PidFile::new(self.directory.join("pid"), self.words())
    }

    fn epmd_pid_file(&self, port: u16) -> PidFile {
        PidFile::new(self.directory.join("epmd.pid"), format!("epmd -address 127.0.0.1 -port {port}"))
    }

    fn kill_epmd(&self) -> Result<(), Error> {
        match ports::last(&self.directory) {
            Some(port) => self.epmd_pid_file(port + 1).kill(),
            None => Ok(()),
        }
    }

    fn url(&self, port: u16) -> String {
        match self.certificates {
            Some(_) => format!("amqps://guest:guest@localhost:{port}"),
            None => format!("amqp://guest:guest@127.0.0.1:{port}"),
        }
    }

    fn settings(&self, port: u16) -> String {
        let listeners = match &self.certificates {
            None => format!("listeners.tcp.1 = 127.0.0.1:{port}"),
            Some(certificates) => {
                let directory = certificates.display();
                format!(
                    "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\n\
                     ssl_options.certfile = {directory}/certificate.pem\nssl_options.keyfile = {directory}/key.pem\n\
                     ssl_options.verify = verify_none"
                )
            }
        };
        include_str!("rabbitmq/rabbitmq.conf").replace("@LISTENERS@", &listeners)
    }

    fn start_epmd(&self, port: u16) -> Result<(), Error> {
        let mut command = in_own_session("epmd");
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        if let Some(scope) = &self.scope {
            scope.mark(&mut command);
        }
        let epmd = start(write_output(&mut command, &self.directory.join("epmd.log"))?)?;
        self.epmd_pid_file(port).record(epmd.id())?;
        if wait_until(Duration::from_secs(5), || ports::is_open(port))? {
            Ok(())
        } else {
            Err(Error::StartFailed { server: "epmd", directory: self.directory.clone() })
        }
    }

    fn start_node(&self, binaries: &Path, port: u16) -> Result<Child, Error> {
        let directory = &self.directory;
        let mut command = in_own_session(binaries.join("rabbitmq-server"));
        // The node's name is part of its data, so it must not change with the port.
        command.env("RABBITMQ_NODENAME", "catacloud@localhost");
        // As under systemd, the script becomes the server and keeps its process id.
        command.env("RUNNING_UNDER_SYSTEMD", "true");
        command.env("HOME", directory.join("home"));
        command.env("ERL_EPMD_PORT", (port + 1).to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_DIST_PORT", (port + 2).to_string());
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command.env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("enabled_plugins"));
        command.env("RABBITMQ_MNESIA_BASE", directory.join("data")).env("RABBITMQ_LOG_BASE", directory.join("log"));
        let arguments = format!("-kernel inet_dist_use_interface {{127,0,0,1}} {}", self.words());
        command.env("RABBITMQ_SERVER_START_ARGS", arguments);
        if let Some(scope) = &self.scope {
            scope.mark(&mut command);
        }
        start(append_output(&mut command, &directory.join("server.log"))?)
    }
}

impl Server for RabbitMq {
    fn start(&self, port: u16) -> Result<String, Error> {
        let directory = &self.directory;
        let remedy = "apt-get install rabbitmq-server";
        let binaries = find_or_install()?.ok_or(Error::ServerMissing { server: NAME, remedy })?;
        checkout::create_directory(&directory.join("home"))?;
        checkout::create_directory(&directory.join("log"))?;
        if let Some(scope) = &self.scope {
            scope.record(ServerKind::RabbitMq, directory, directory)?;
        }
        if self.pid_file().running().is_some() {
            require_same_port(NAME, directory, port)?;
            return Ok(self.url(port));
        }
        self.kill_epmd()?;
        for port in [port, port + 1, port + 2] {
            ports::require_closed(port, &name_with_directory(NAME, directory))?;
        }
        checkout::write(&directory.join("rabbitmq.conf"), self.settings(port))?;
        checkout::write(&directory.join("enabled_plugins"), "[].\n")?;
        record_port(directory, port)?;
        self.start_epmd(port + 1)?;
        let mut node = self.start_node(&binaries, port)?;
        self.pid_file().record(node.id())?;
        // The node opens its port last.
        if !wait_while_running(&mut node, START_LIMIT, || ports::is_open(port))? {
            console::report_log_tail(&directory.join("server.log"));
            self.kill()?;
            return Err(Error::StartFailed { server: NAME, directory: directory.clone() });
        }
        Ok(self.url(port))
    }

    fn stop(&self) -> Result<(), Error> {
        self.pid_file().terminate(Duration::from_secs(30))?;
        self.kill_epmd()
    }

    fn kill(&self) -> Result<(), Error> {
        self.pid_file().kill()?;
        self.kill_epmd()
    }

    fn remove(&self) -> Result<(), Error> {
        self.kill()?;
        checkout::delete(&self.directory)
    }
}

/// Returns the version of the installed server, as in `RabbitMQ 3.10.8`.
pub(crate) fn version() -> String {
    let libraries = find().map(|binaries| binaries.join("../lib"));
    let entries = libraries.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let version = names.filter_map(|name| name.strip_prefix("rabbitmq_server-").map(str::to_owned)).next();
    format!("RabbitMQ {}", version.as_deref().unwrap_or("of unknown version"))
}

/// Returns the directory of the server's scripts; installs the server if it is missing and that is allowed.
pub(crate) fn find_or_install() -> Result<Option<PathBuf>, Error> {
    if let Some(binaries) = find() {
        return Ok(Some(binaries));
    }
    install()?;
    Ok(find())
}

/// Returns the directory of the server's own scripts. The ones in `PATH` insist on Debian's user and files.
fn find() -> Option<PathBuf> {
    let directory = PathBuf::from("/usr/lib/rabbitmq/bin");
    let directory = if is_executable(&directory.join("rabbitmq-server")) {
        directory
    } else {
        fs::canonicalize(find_program("rabbitmq-server")?).ok()?.parent()?.to_owned()
    };
    let is_complete = is_executable(&directory.join("rabbitmq-server")) && find_program("epmd").is_some();
    is_complete.then_some(directory)
}

fn install() -> Result<(), Error> {
    // Debian would start a server on 5672. A masked unit isn't started.
    let unit = Path::new("/etc/systemd/system/rabbitmq-server.service");
    let may_mask = unit.parent().is_some_and(Path::is_dir) && fs::symlink_metadata(unit).is_err();
    let mask = || succeeds(discard_output(as_root("ln").args(["-s", "/dev/null"]).arg(unit)));
    let masked = may_mask && mask().unwrap_or(false);
    let installed = apt_install(&["rabbitmq-server"]);
    if masked {
        succeeds(discard_output(as_root("rm").arg("-f").arg(unit)))?;
    }
    installed.map(drop)
}

#[cfg(test)]
mod tests {
    use super::RabbitMq;

    #[test]
    fn tls_settings_close_the_plain_port() {
        let rabbitmq = RabbitMq::new("/tmp/rabbitmq").unwrap().with_tls("/certs");
        let settings = rabbitmq.settings(25_672);
        assert!(settings.starts_with("listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:25672\n"), "{settings}");
        assert!(settings.contains("\nssl_options.certfile = /certs/certificate.pem\n"), "{settings}");
        assert_eq!(rabbitmq.url(25_672), "amqps://guest:guest@localhost:25672");
    }
}
