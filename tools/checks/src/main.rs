//! Checks of the repository that no published linter offers.
//!
//! `checks all` runs every check, the name of one of [`CHECKS`] runs that. Each prints its
//! findings and ends with status 1 if there are any.

mod circles;
mod commits;
mod crates;
mod error;
mod git;
mod links;
mod prose;

use std::{path::Path, process::ExitCode};

use crate::error::CheckError;

const USAGE: &str = "usage: checks all | prose | circles | links | commits";

type Check = fn(&Path) -> Result<bool, CheckError>;

const CHECKS: [(&str, Check); 4] =
    [("prose", prose::check), ("circles", circles::check), ("links", links::check), ("commits", commits::check)];

fn main() -> ExitCode {
    let chosen = std::env::args().nth(1).unwrap_or_default();
    let checks: Vec<_> = CHECKS.iter().filter(|(name, _)| chosen == "all" || chosen == *name).collect();
    if checks.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let root = match git::root() {
        Ok(root) => root,
        Err(error) => {
            eprintln!("checks: {error}");
            return ExitCode::from(2);
        }
    };
    let mut passed = true;
    for (name, check) in checks {
        match check(&root) {
            Ok(clean) => passed &= clean,
            Err(error) => {
                eprintln!("checks: {name}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
