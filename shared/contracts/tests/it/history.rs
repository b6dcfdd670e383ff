//! Earlier versions of schemas from the git history.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// A committed version of a schema.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PastSchema {
    /// Path below `schemas/`.
    pub(crate) name: String,
    /// Hash of the git blob.
    pub(crate) blob: String,
    pub(crate) text: String,
}

/// Returns every committed version of every schema, the latest first. Empty without git or without a history.
pub(crate) fn past(workspace: &Path) -> Vec<PastSchema> {
    // `-m` and `--full-history` include versions that exist only in a merge commit or on a merged branch.
    let log = ["log", "-m", "--full-history", "--format=", "--raw", "--no-abbrev", "--no-renames", "--relative"];
    let mut seen = BTreeSet::new();
    git(workspace, &[&log[..], &["--", "schemas"]].concat())
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            // ":100644 100644 <blob before> <blob after> M\t<path>"
            let (change, path) = line.split_once('\t')?;
            let blob = change.split(' ').nth(3)?;
            let name = path.strip_prefix("schemas/").filter(|name| name.ends_with(".avsc"))?;
            let deleted = blob.bytes().all(|digit| digit == b'0');
            if deleted || !seen.insert((name.to_owned(), blob.to_owned())) {
                return None;
            }
            let text = git(workspace, &["cat-file", "blob", blob])?;
            Some(PastSchema { name: name.to_owned(), blob: blob.to_owned(), text })
        })
        .collect()
}

fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // Set inside git hooks, where they would override `workspace`.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.arg("-C").arg(workspace).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

#[test]
fn past_returns_changed_and_deleted_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let workspace = directory.path();
    assert_eq!(past(workspace), []);
    if git(workspace, &["init", "--quiet", "--initial-branch=main"]).is_none() {
        eprintln!("skipped: git is not installed");
        return;
    }
    assert_eq!(past(workspace), [], "no commit yet");

    let commit = || {
        git(workspace, &["add", "--all"]).unwrap();
        let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
        git(workspace, &[&identity[..], &["commit", "--quiet", "--message=test"]].concat()).unwrap();
    };
    let schema = workspace.join("schemas/job/JobLost.avsc");
    fs::create_dir_all(schema.parent().unwrap()).unwrap();
    for text in ["first", "second", "first"] {
        fs::write(&schema, text).unwrap();
        commit();
    }
    fs::remove_file(&schema).unwrap();
    fs::write(workspace.join("schemas/README.md"), "not a schema").unwrap();
    commit();

    let past = past(workspace);
    let versions: Vec<_> = past.iter().map(|past| (past.name.as_str(), past.text.as_str())).collect();
    assert_eq!(versions, [("job/JobLost.avsc", "first"), ("job/JobLost.avsc", "second")]);
}
