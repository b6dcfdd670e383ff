//! The repository as git sees it: its root, its tracked files, its commits.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::CheckError;

fn git(directory: &Path, arguments: &[&str]) -> Result<String, CheckError> {
    let command = arguments.join(" ");
    let failed = |detail: String| CheckError::Git { command: command.clone(), detail };
    let output = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the top directory of the checkout.
pub(crate) fn root() -> Result<PathBuf, CheckError> {
    Ok(PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"])?.trim_end()))
}

/// Returns the paths of the files that git tracks or would track, relative to `root` and sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<String>, CheckError> {
    let listed = git(root, &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    let mut files: Vec<_> = listed.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// A commit that is not a merge.
pub(crate) struct Commit {
    pub(crate) id: String,
    pub(crate) subject: String,
}

/// Returns the commits after `base`, newest first; `None` where the clone is too shallow to have `base`.
pub(crate) fn commits_since(root: &Path, base: &str) -> Result<Option<Vec<Commit>>, CheckError> {
    if git(root, &["cat-file", "-e", &format!("{base}^{{commit}}")]).is_err() {
        return Ok(None);
    }
    let log = git(root, &["log", "--no-merges", "--format=%h %s", &format!("{base}..HEAD")])?;
    let split = |line: &str| {
        let (id, subject) = line.split_once(' ').unwrap_or((line, ""));
        Commit { id: id.to_owned(), subject: subject.to_owned() }
    };
    Ok(Some(log.lines().map(split).collect()))
}

/// Reads a file of the checkout as text; invalid UTF-8 is replaced.
pub(crate) fn read(root: &Path, path: &str) -> Result<String, CheckError> {
    let bytes = std::fs::read(root.join(path)).map_err(|source| CheckError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
