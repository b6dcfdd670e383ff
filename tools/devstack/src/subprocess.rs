//! Programs that a command runs to their end.

use std::{
    env,
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process_group, test_kill_process_group};

use crate::{Error, checkout, interrupt, process};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time between SIGTERM and SIGKILL for an interrupted program.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a program without input to its end and returns whether it succeeded.
///
/// # Errors
/// If the program can't be started, or a signal arrives: the program is ended then.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool, Error> {
    let mut child = spawn(command)?;
    let status = wait(&mut child, None, terminate_child)?;
    Ok(status.is_some_and(|status| status.success()))
}

/// Like [`succeeds`], but ends a program that runs longer than `limit` and returns false for it.
pub(crate) fn succeeds_within(limit: Duration, command: &mut Command) -> Result<bool, Error> {
    let mut child = spawn(command)?;
    let status = wait(&mut child, Some(Instant::now() + limit), terminate_child)?;
    Ok(status.is_some_and(|status| status.success()))
}

/// Runs a program in a process group of its own, so that an interruption reaches all of its children and a terminal's
/// Ctrl-C reaches them only through this process.
///
/// # Errors
/// If the program can't be started, or a signal arrives: the whole group is ended then.
pub(crate) fn succeeds_in_group(command: &mut Command) -> Result<bool, Error> {
    let mut child = spawn(command.process_group(0))?;
    let status = wait(&mut child, None, terminate_group)?;
    Ok(status.is_some_and(|status| status.success()))
}

/// Returns the output of a short program on stdout, without trailing white space, or `None` if it fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Returns a command that runs `program` in a session of its own, so that a terminal's signals don't reach it. The
/// process keeps its id, because `setsid` forks only if it leads a process group.
pub(crate) fn in_own_session(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// Sends both outputs of a command to a log. An existing log is continued.
pub(crate) fn append_output<'c>(command: &'c mut Command, log: &Path) -> Result<&'c mut Command, Error> {
    let file = File::options().create(true).append(true).open(log).map_err(Error::io("open", log))?;
    let copy = file.try_clone().map_err(Error::io("open", log))?;
    Ok(command.stdout(file).stderr(copy))
}

/// Sends both outputs of a command to a new log.
pub(crate) fn write_output<'c>(command: &'c mut Command, log: &Path) -> Result<&'c mut Command, Error> {
    checkout::write(log, "")?;
    append_output(command, log)
}

/// Discards both outputs of a command.
pub(crate) fn discard_output(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

/// Starts a program, and names it in the error if that fails.
pub(crate) fn start(command: &mut Command) -> Result<Child, Error> {
    let program = PathBuf::from(command.get_program());
    command.spawn().map_err(Error::io("run", program))
}

/// Returns the path of a program in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|candidate| is_executable(candidate))
}

/// Returns whether `path` is a file that may be executed.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn spawn(command: &mut Command) -> Result<Child, Error> {
    start(command.stdin(Stdio::null()))
}

fn wait(
    child: &mut Child,
    deadline: Option<Instant>,
    terminate: impl Fn(&mut Child),
) -> Result<Option<ExitStatus>, Error> {
    loop {
        let status = child.try_wait().map_err(Error::io("wait for", "a program"))?;
        // A terminal sends Ctrl-C to the program too, and may have ended it already.
        if let Err(interrupted) = interrupt::check() {
            terminate(child);
            return Err(interrupted);
        }
        if status.is_some() {
            return Ok(status);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            terminate(child);
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn terminate_child(child: &mut Child) {
    process::send(child.id(), Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn terminate_group(child: &mut Child) {
    let Some(group) = process::pid(child.id()) else { return };
    let _ = kill_process_group(group, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    // The leader must be reaped: as a zombie it would keep the group alive.
    while child.try_wait().is_ok() && test_kill_process_group(group).is_ok() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::{find_program, output_of, succeeds, succeeds_in_group, succeeds_within};

    #[test]
    fn program_succeeds_by_its_exit_status() {
        assert!(succeeds(&mut Command::new("true")).unwrap());
        assert!(!succeeds_in_group(&mut Command::new("false")).unwrap());
        assert!(succeeds(&mut Command::new("no-such-program")).is_err());
    }

    #[test]
    fn program_is_ended_when_it_exceeds_its_limit() {
        let began = Instant::now();
        assert!(!succeeds_within(Duration::from_millis(200), Command::new("sleep").arg("60")).unwrap());
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn output_is_none_when_the_program_fails() {
        assert_eq!(output_of(Command::new("echo").arg("1.2")).as_deref(), Some("1.2"));
        assert_eq!(output_of(Command::new("sh").args(["-c", "echo 1; exit 1"])), None);
    }

    #[test]
    fn program_is_found_in_path() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program"), None);
    }
}
