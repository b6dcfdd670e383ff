//! The `devstack` program.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

fn devstack() -> Command {
    Command::new(env!("CARGO_BIN_EXE_devstack"))
}

fn run(arguments: &[&str]) -> Output {
    devstack().args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn help_is_printed_in_any_directory() {
    let directory = tempfile::tempdir().unwrap();
    let output = devstack().arg("--help").current_dir(directory.path()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), devstack::cli::HELP);
}

#[test]
fn script_prints_help_without_rust() {
    let script = devstack::checkout::root().join("dev");
    for arguments in [&["help"][..], &[]] {
        let mut command = Command::new(&script);
        command.args(arguments).env("PATH", "/usr/bin:/bin").env_remove("CARGO_HOME").env("HOME", "/nonexistent");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), devstack::cli::HELP);
    }
}

#[test]
fn unknown_command_fails_with_help_on_stderr() {
    let output = run(&["fly"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("Usage: ./dev COMMAND"), "{text}");
    assert!(text.ends_with("dev: no such command: fly\n"), "{text}");
}

#[test]
fn wrong_arguments_fail_with_usage() {
    let output = run(&["kafka", "start", "directory"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "dev: usage: ./dev kafka start DIR PORT | stop DIR | kill DIR | remove DIR\n");
}

#[test]
fn waiting_command_exits_143_when_terminated() {
    let directory = devstack::checkout::root().join(".dev");
    std::fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join("up.lock")).unwrap();
    if lock.try_lock().is_err() {
        eprintln!("skipped: another ./dev is bringing the stack of this checkout up or down");
        return;
    }
    let mut down = devstack().arg("down").stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(down.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "another ./dev is bringing Catacloud up or down: waiting for it\n");
    let pid = Pid::from_raw(i32::try_from(down.id()).unwrap()).unwrap();
    // Not SIGINT: a shell's background jobs ignore it, and `./dev` keeps ignored signals ignored.
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(down.wait().unwrap().code(), Some(143));
}
