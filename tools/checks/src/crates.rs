//! Packages of the repository: each directory with a `Cargo.toml` or a `package.json`.

use std::collections::BTreeSet;

/// The package that text outside of every package counts to: `README.md`, `docs/`, `dev`.
pub(crate) const OUTSIDE: &str = "(repository)";

/// The directories of all packages, longest first, so that a nested package is found before the one around it.
pub(crate) struct Packages(Vec<String>);

impl Packages {
    pub(crate) fn of(files: &[String]) -> Self {
        let manifest =
            |path: &String| path.strip_suffix("/Cargo.toml").or(path.strip_suffix("/package.json")).map(str::to_owned);
        let directories: BTreeSet<String> = files.iter().filter_map(manifest).collect();
        let mut directories: Vec<_> = directories.into_iter().collect();
        directories.sort_by_key(|directory| std::cmp::Reverse(directory.len()));
        Self(directories)
    }

    /// Returns the directory of the package that holds `path`.
    pub(crate) fn holding(&self, path: &str) -> &str {
        let holds =
            |directory: &&String| path.strip_prefix(directory.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.0.iter().find(holds).map_or(OUTSIDE, String::as_str)
    }

    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_package_holds_its_own_files() {
        let files = ["services/billing/Cargo.toml", "services/billing/rating/Cargo.toml"].map(str::to_owned);
        let packages = Packages::of(&files);
        assert_eq!(packages.holding("services/billing/rating/src/lib.rs"), "services/billing/rating");
        assert_eq!(packages.holding("services/billing/src/lib.rs"), "services/billing");
        assert_eq!(packages.holding("docs/tutorial.md"), OUTSIDE);
    }
}
