//! Processes that outlive the command that started them, known by a file with their id.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{Error, checkout, interrupt};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A process, identified by a file with its id and by words of its command line.
///
/// The kernel may have given the id to another program since the file was written, so the process is only ours if its
/// command line contains the words.
#[derive(Debug, Clone)]
pub(crate) struct PidFile {
    path: PathBuf,
    words: String,
}

impl PidFile {
    /// Identifies a process by the id in the first line of `path` and by `words`, which its command line contains when
    /// the arguments are separated by blanks.
    pub(crate) fn new(path: impl Into<PathBuf>, words: impl Into<String>) -> Self {
        Self { path: path.into(), words: words.into() }
    }

    /// Writes down the id of a process that has just been started.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(crate) fn record(&self, id: u32) -> Result<(), Error> {
        checkout::write(&self.path, format!("{id}\n"))
    }

    /// Returns the id of the process if it runs.
    pub(crate) fn running(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.path).ok()?;
        let id = text.lines().next()?.trim().parse().ok()?;
        // A zombie has an empty command line.
        command_line(id)?.contains(&self.words).then_some(id)
    }

    /// Sends SIGTERM and waits for the process to end; after `grace` sends SIGKILL. Succeeds if it doesn't run.
    ///
    /// # Errors
    /// If the process survives SIGKILL.
    pub(crate) fn terminate(&self, grace: Duration) -> Result<(), Error> {
        if let Some(id) = self.running() {
            send(id, Signal::TERM);
            if !wait_until(grace, || self.running() != Some(id))? {
                return self.kill();
            }
            reap(id);
        }
        checkout::delete(&self.path)
    }

    /// Sends SIGKILL and waits for the process to end. Succeeds if it doesn't run.
    ///
    /// # Errors
    /// If the process survives for ten seconds.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        if let Some(id) = self.running() {
            send(id, Signal::KILL);
            if !wait_until(Duration::from_secs(10), || self.running() != Some(id))? {
                return Err(Error::Unkillable(id));
            }
            reap(id);
        }
        checkout::delete(&self.path)
    }
}

/// Sends a signal to a process. A process that has ended is no error.
pub(crate) fn send(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process(pid, signal);
    }
}

/// Converts an id as the standard library has it.
pub(crate) fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Takes the exit status of a process if it is a child of this one, as servers of a test are; else it stays a zombie.
fn reap(id: u32) {
    if let Some(pid) = pid(id) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Returns the command line of a process with blanks between its arguments, or `None` if there is no such process.
fn command_line(id: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// Returns when a process started, in clock ticks since boot. Id and start time together identify a
/// process until the next boot.
pub(crate) fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field, the program's name in parentheses, may contain blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// Returns the ids of all processes.
pub(crate) fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whether a process has `directory` as its working directory.
pub(crate) fn any_works_in(directory: &Path) -> bool {
    all().into_iter().any(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|path| path == directory))
}

/// Polls `condition` until it holds; returns false when it doesn't within `limit`.
///
/// # Errors
/// If a signal arrives, for commands that handle signals.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> Result<bool, Error> {
    let deadline = Instant::now() + limit;
    while !condition() {
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(true)
}

/// Polls `condition` until it holds; returns false when the child ends before, or it doesn't hold within `limit`.
///
/// # Errors
/// If a signal arrives, for commands that handle signals.
pub(crate) fn wait_while_running(
    child: &mut Child,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<bool, Error> {
    let mut holds = false;
    wait_until(limit, || {
        holds = condition();
        holds || !matches!(child.try_wait(), Ok(None))
    })?;
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use super::{PidFile, start_time};

    #[test]
    fn pid_file_ignores_a_recycled_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let file = PidFile::new(&path, "kafka.Kafka /somewhere/server.properties");
        file.record(stranger.id()).unwrap();
        assert_eq!(file.running(), None);
        file.kill().unwrap();
        assert!(!path.exists());
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger was killed");
        assert_eq!(PidFile::new(&path, "sleep 60").running(), None, "the file is gone");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn pid_file_ignores_garbage_and_zombies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut child = Command::new("true").spawn().unwrap();
        let file = PidFile::new(&path, "true");
        for text in ["", "\n", "-1\n", "x\n", "99999999999\n", "0\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.running(), None, "{text:?}");
        }
        file.record(child.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while file.running().is_some() && Instant::now() < deadline {}
        assert_eq!(file.running(), None);
        child.wait().unwrap();
    }

    #[test]
    fn terminate_escalates_to_sigkill() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = Command::new("sh").args(["-c", script, "stubborn"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let file = PidFile::new(directory.path().join("pid"), "stubborn");
        file.record(child.id()).unwrap();
        assert_eq!(file.running(), Some(child.id()));
        file.terminate(Duration::from_millis(300)).unwrap();
        assert_eq!(file.running(), None);
        assert!(child.wait().is_err(), "the child was not reaped");
    }

    #[test]
    fn start_time_tells_processes_apart() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(start_time(std::process::id()), Some(own));
        assert_eq!(start_time(u32::MAX), None);
    }
}
