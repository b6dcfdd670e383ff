//! Import circles: files of one crate that need each other, directly or over others.
//!
//! A file needs another if it names one of the other's items, in a `use`, a path or a macro's arguments. Re-exports are
//! followed to the file that defines the item and are no need themselves. Code under `#[cfg(test)]` does not count.

mod components;
mod graph;
mod modules;

use std::path::Path;

use crate::{crates::Packages, error::CheckError, git};

/// Prints the circles of each crate and returns whether there are none.
pub(crate) fn check(root: &Path) -> Result<bool, CheckError> {
    let files = git::files(root)?;
    let packages = Packages::of(&files);
    let (mut crates, mut circles) = (0, 0);
    for package in packages.directories() {
        for entry in ["src/lib.rs", "src/main.rs"] {
            let entry = format!("{package}/{entry}");
            if !files.contains(&entry) {
                continue;
            }
            crates += 1;
            let modules = modules::read(root, &entry)?;
            let needs = graph::needs(&modules);
            for circle in components::circles(&needs) {
                circles += 1;
                println!("circles: {entry}: {} files need each other", circle.len());
                for (from, to) in components::edges(&needs, &circle) {
                    println!("circles:   {from} -> {to}");
                }
            }
        }
    }
    println!("circles: {circles} in {crates} crates");
    Ok(circles == 0)
}
