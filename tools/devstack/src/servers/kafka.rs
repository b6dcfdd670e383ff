//! Apache Kafka, one node in KRaft mode, from Maven Central.
//!
//! ```text
//! DIR/data    the log directory        DIR/pid, DIR/port, DIR/server.log, DIR/server.properties
//! ```

mod download;

use std::{
    env, fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

pub(crate) use self::download::VERSION;
use super::{Server, ServerKind, name_with_directory, record_port, require_same_port, server_directory};
use crate::{
    Error, checkout, console, ports,
    process::{PidFile, wait_until, wait_while_running},
    random,
    scope::Scope,
    subprocess::{append_output, find_program, in_own_session, start, succeeds, write_output},
};

const NAME: &str = "Kafka";
const START_LIMIT: Duration = Duration::from_secs(90);

/// A private Kafka broker on a port, with its controller on the next one.
#[derive(Debug, Clone)]
pub struct Kafka {
    directory: PathBuf,
    full_jit: bool,
    scope: Option<Scope>,
}

impl Kafka {
    /// Creates a handle of the broker in `directory`, in the scope of this process.
    ///
    /// # Errors
    /// If the path can't be resolved.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let full_jit = env::var_os("CATACLOUD_DEV_KAFKA_FULL_JIT").is_some_and(|value| !value.is_empty());
        Ok(Self { directory: server_directory(directory)?, full_jit, scope: Scope::current() })
    }

    /// Makes the server part of a scope.
    #[must_use]
    pub fn with_scope(mut self, scope: &Scope) -> Self {
        self.scope = Some(scope.clone());
        self
    }

    /// Lets the JVM compile with full optimization, for measurements. Default: only
    /// if `CATACLOUD_DEV_KAFKA_FULL_JIT` is set, because a broker that runs for seconds starts faster without.
    #[must_use]
    pub fn with_full_jit(mut self) -> Self {
        self.full_jit = true;
        self
    }

    fn pid_file(&self) -> PidFile {
        PidFile::new(self.directory.join("pid"), format!("kafka.Kafka {}", self.settings().display()))
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn write_settings(&self, port: u16) -> Result<(), Error> {
        let settings = include_str!("kafka/server.properties")
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &(port + 1).to_string())
            .replace("@DIRECTORY@", &self.directory.display().to_string());
        checkout::write(&self.settings(), settings)?;
        checkout::write(&self.directory.join("log4j2.properties"), include_str!("kafka/log4j2.properties"))
    }

    /// Adds the arguments of the JVM, up to and including the class path.
    fn add_jvm_arguments(&self, command: &mut Command) {
        if !self.full_jit {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        let log_settings = self.directory.join("log4j2.properties");
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", log_settings.display()));
        command.arg("-cp").arg(download::libraries().join("*"));
    }

    fn format(&self) -> Result<(), Error> {
        let (formatted, log) = (self.directory.join("formatted"), self.directory.join("format.log"));
        if formatted.is_file() {
            return Ok(());
        }
        checkout::delete(&self.directory.join("data"))?;
        let mut format = Command::new(download::java());
        self.add_jvm_arguments(&mut format);
        format.args(["kafka.tools.StorageTool", "format", "-t", &random::kafka_cluster_id()?, "-c"]);
        if !succeeds(write_output(format.arg(self.settings()), &log)?)? {
            console::report_log_tail(&log);
            return Err(Error::Failed(format!("Kafka's StorageTool failed in {}", self.directory.display())));
        }
        checkout::write(&formatted, "")
    }

    fn wait_for_closed_port(&self) -> Result<(), Error> {
        let Some(port) = ports::last(&self.directory) else { return Ok(()) };
        if wait_until(Duration::from_secs(5), || !ports::is_open(port))? {
            Ok(())
        } else {
            Err(Error::StopFailed { server: NAME, directory: self.directory.clone() })
        }
    }
}

impl Server for Kafka {
    fn start(&self, port: u16) -> Result<String, Error> {
        let (directory, address) = (&self.directory, format!("127.0.0.1:{port}"));
        download::require()?;
        checkout::create_directory(directory)?;
        if let Some(scope) = &self.scope {
            scope.record(ServerKind::Kafka, directory, directory)?;
        }
        if self.pid_file().running().is_some() {
            require_same_port(NAME, directory, port)?;
            return Ok(address);
        }
        for port in [port, port + 1] {
            ports::require_closed(port, &name_with_directory(NAME, directory))?;
        }
        self.write_settings(port)?;
        record_port(directory, port)?;
        self.format()?;

        let log = directory.join("server.log");
        let log_end = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = in_own_session(download::java());
        self.add_jvm_arguments(&mut command);
        command.arg("kafka.Kafka").arg(self.settings());
        if let Some(scope) = &self.scope {
            scope.mark(&mut command);
        }
        let mut broker = start(append_output(&mut command, &log)?)?;
        self.pid_file().record(broker.id())?;
        let is_ready = || contains_since(&log, log_end, "Kafka Server started") && ports::is_open(port);
        if !wait_while_running(&mut broker, START_LIMIT, is_ready)? {
            console::report_log_tail(&log);
            self.pid_file().kill()?;
            return Err(Error::StartFailed { server: NAME, directory: directory.clone() });
        }
        Ok(address)
    }

    fn stop(&self) -> Result<(), Error> {
        if self.pid_file().running().is_none() {
            return Ok(());
        }
        self.pid_file().terminate(Duration::from_secs(20))?;
        self.wait_for_closed_port()
    }

    fn kill(&self) -> Result<(), Error> {
        if self.pid_file().running().is_none() {
            return Ok(());
        }
        self.pid_file().kill()?;
        self.wait_for_closed_port()
    }

    fn remove(&self) -> Result<(), Error> {
        self.kill()?;
        checkout::delete(&self.directory)
    }
}

/// Returns whether a broker can be started: Java 17 or newer, and the jars or Maven to download them.
pub(crate) fn is_available() -> bool {
    download::has_java_17() && (download::libraries().is_dir() || find_program("mvn").is_some())
}

/// Returns whether a log contains `text` after its first `start` bytes.
fn contains_since(log: &Path, start: u64, text: &str) -> bool {
    let read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Kafka, contains_since};

    #[test]
    fn settings_name_ports_and_data() {
        let directory = tempfile::tempdir().unwrap();
        let kafka = Kafka::new(directory.path()).unwrap();
        kafka.write_settings(29_092).unwrap();
        let settings = fs::read_to_string(kafka.settings()).unwrap();
        assert!(settings.contains("\nadvertised.listeners=PLAINTEXT://127.0.0.1:29092\n"), "{settings}");
        assert!(settings.contains("\ncontroller.quorum.voters=1@127.0.0.1:29093\n"), "{settings}");
        let data = format!("\nlog.dirs={}/data\n", kafka.directory.display());
        assert!(settings.contains(&data), "{settings}");
    }

    #[test]
    fn log_of_an_earlier_start_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("server.log");
        fs::write(&log, "Kafka Server started\n").unwrap();
        assert!(contains_since(&log, 0, "Kafka Server started"));
        assert!(!contains_since(&log, 21, "Kafka Server started"));
    }
}
