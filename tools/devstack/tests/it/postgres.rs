//! A real Postgres, as a test uses it and as a person does.

use std::{
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use devstack::{
    ports,
    scope::Scope,
    servers::{Postgres, Server},
};

fn accepts_connections(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn devstack(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn postgres_keeps_its_data_over_kill_and_stop() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("postgres");
    let port = ports::choose().unwrap();
    let postgres = Postgres::new(&directory).unwrap().with_shared_buffers("16MB");
    let url = postgres.start(port).unwrap();
    assert_eq!(url, format!("postgres://catacloud@127.0.0.1:{port}/postgres"));
    assert_eq!(postgres.start(port).unwrap(), url, "the second start finds the server");
    let error = postgres.start(port + 3).unwrap_err();
    assert!(error.to_string().ends_with(&format!("runs already, on port {port}")), "{error}");

    postgres.kill().unwrap();
    assert!(!accepts_connections(port));
    // The lock file of the crash names a process that lives: this one.
    let home = home(&directory);
    let lock_file = format!("{}\n", std::process::id());
    std::fs::write(home.join("data/postmaster.pid"), lock_file).unwrap();
    assert_eq!(postgres.start(port).unwrap(), url);
    assert!(accepts_connections(port));

    postgres.stop().unwrap();
    assert!(!accepts_connections(port));
    postgres.stop().unwrap();
    postgres.remove().unwrap();
    assert!(!directory.exists());
    assert!(!home.exists());
}

#[test]
fn command_starts_and_removes_postgres() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("postgres").display().to_string();
    let port = ports::choose().unwrap();
    let url = devstack(&["postgres", "start", &directory, &port.to_string()]).unwrap();
    assert_eq!(url, format!("postgres://catacloud@127.0.0.1:{port}/postgres\n"));
    for verb in ["kill", "stop", "remove"] {
        assert_eq!(devstack(&["postgres", verb, &directory]).unwrap(), "", "{verb}");
    }
    assert!(!accepts_connections(port));
    assert!(!Path::new(&directory).exists());
}

#[test]
fn scope_close_stops_a_forgotten_postgres() {
    let parent = tempfile::tempdir().unwrap();
    let scope = Scope::open(parent.path().join("test-1")).unwrap();
    let directory = parent.path().join("postgres");
    let port = ports::choose().unwrap();
    Postgres::new(&directory).unwrap().with_scope(&scope).with_shared_buffers("16MB").start(port).unwrap();
    assert!(accepts_connections(port));
    scope.close().unwrap();
    assert!(!accepts_connections(port));
    assert!(!directory.exists());
    assert!(!scope.directory().exists());
}

#[test]
fn start_fails_when_the_port_is_taken() {
    let parent = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = Postgres::new(parent.path().join("postgres")).unwrap().start(port).unwrap_err();
    assert!(error.to_string().starts_with(&format!("port {port} is in use: Postgres in /")), "{error}");
}

/// Returns the directory of the data: `elsewhere` if Postgres' user can't write to the server's own.
fn home(directory: &Path) -> std::path::PathBuf {
    directory.join("elsewhere").canonicalize().unwrap_or_else(|_| directory.to_owned())
}
