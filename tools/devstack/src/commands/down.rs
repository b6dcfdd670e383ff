//! `./dev down`: stops the stack of `up`, and removes runs that were killed.

use std::{fs, path::PathBuf};

use super::stack::{self, UpLock};
use crate::{
    Error, checkout, console,
    scope::Scope,
    servers::{Postgres, Server, redpanda},
};

pub(crate) fn run(arguments: &[String]) -> Result<(), Error> {
    let wipe = match arguments {
        [] => false,
        [option] if option == "--wipe" => true,
        _ => return Err(Error::Usage("./dev down [--wipe]")),
    };
    let _lock = UpLock::acquire()?;
    stack::stop()?;
    close_abandoned_scopes()?;
    let up = checkout::up();
    if wipe {
        delete_data()?;
        console::report("Catacloud is down, and its data is deleted");
    } else if up.is_dir() {
        let up = checkout::relative(&up);
        console::report(format!("Catacloud is down; its data is kept in {up} (./dev down --wipe deletes it)"));
    } else {
        console::report("Catacloud is down");
    }
    Ok(())
}

fn delete_data() -> Result<(), Error> {
    redpanda::remove()?;
    let postgres = checkout::up().join("postgres");
    if postgres.is_dir() {
        Postgres::new(postgres)?.remove()?;
    }
    checkout::delete(&checkout::up())
}

fn close_abandoned_scopes() -> Result<(), Error> {
    for directory in scope_directories() {
        let (scope, name) = (Scope::of(&directory), checkout::relative(&directory));
        if scope.is_owned() {
            console::report(format!("left alone: {name}, which is still running"));
        } else {
            console::report(format!("removing {name}, which a killed run left"));
            scope.close()?;
        }
    }
    Ok(())
}

/// Returns the directories of all runs of `test` and `bench`.
fn scope_directories() -> Vec<PathBuf> {
    let entries = fs::read_dir(checkout::dev()).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("test-") || name.starts_with("bench-")
        })
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    directories
}
