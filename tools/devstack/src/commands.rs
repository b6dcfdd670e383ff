//! The commands of `./dev`.

pub(crate) mod bench;
pub(crate) mod down;
pub(crate) mod lint;
pub(crate) mod server;
mod stack;
pub(crate) mod test;
pub(crate) mod up;

use std::ffi::OsString;

use crate::{Error, checkout, console, interrupt, scope};
use scope::Scope;

/// Runs a command in a scope, and closes the scope also when the command fails or is interrupted.
fn run_in_scope(command: &str, run: impl FnOnce(&Scope) -> Result<(), Error>) -> Result<(), Error> {
    let scope = Scope::open(checkout::dev().join(format!("{command}-{}", std::process::id())))?;
    let result = checkout::create_directory(&temporary_directory(&scope)).and_then(|()| run(&scope));
    interrupt::disable();
    let closed = scope.close();
    if matches!(result, Err(Error::Interrupted(_))) {
        console::report("dev: interrupted; all its servers are stopped and deleted");
    }
    result.and(closed)
}

/// Returns the environment of the programs in a scope. Temporary files of tests and compilers are deleted with it.
fn scope_environment(scope: &Scope) -> Vec<(&'static str, OsString)> {
    vec![(scope::VARIABLE, scope.directory().into()), ("TMPDIR", temporary_directory(scope).into())]
}

fn temporary_directory(scope: &Scope) -> std::path::PathBuf {
    scope.directory().join("tmp")
}
