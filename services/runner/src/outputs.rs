//! What a program left in its `outputs/`.
//!
//! The problem: a program may leave links, sockets, a million files, or names that no other system takes.
//! The invariant: only regular files that lie below `outputs/` are found, at most `limit`, and never fewer in silence.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::work_dir::JobDir;

/// The longest file name that the file service takes, in bytes. It has two limits; this one keeps both.
const MAX_NAME_BYTES: usize = 200;

/// A file to be stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Output {
    /// What the file will be called, after its path below `outputs/`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The files to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// By name.
    pub(crate) files: Vec<Output>,
    /// Whether there were more than the limit.
    pub(crate) too_many: bool,
}

/// Finds what is to be stored. Blocks.
pub(crate) fn find(dir: &JobDir, limit: usize) -> io::Result<Outputs> {
    let root = dir.outputs();
    let captured = [dir.stdout(), dir.stderr()];
    let mut files = Vec::new();
    // What was printed comes first, so that it isn't among the files that are too many.
    for path in &captured {
        if fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            files.push(output(&root, path));
        }
    }
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Says what the entry itself is: a link is neither.
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() {
                directories.push(path);
                continue;
            }
            if !kind.is_file() || captured.contains(&path) {
                continue;
            }
            if files.len() >= limit {
                return Ok(sorted(files, true));
            }
            files.push(output(&root, &path));
        }
    }
    Ok(sorted(files, false))
}

/// The media type that a name suggests.
pub(crate) fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("txt" | "log") => "text/plain",
        Some("csv") => "text/csv",
        Some("html") => "text/html",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("pdf") => "application/pdf",
        Some("gz") => "application/gzip",
        Some("zip") => "application/zip",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn sorted(mut files: Vec<Output>, too_many: bool) -> Outputs {
    files.sort();
    Outputs { files, too_many }
}

fn output(root: &Path, path: &Path) -> Output {
    Output { name: output_name(path.strip_prefix(root).unwrap_or(path)), path: path.to_owned() }
}

/// A path as a file name: one component, nothing around it, and the end of it where it is too long.
fn output_name(path: &Path) -> String {
    let name = path.to_string_lossy().replace(|char: char| matches!(char, '/' | '\\') || char.is_control(), "_");
    let end = &name[name.ceil_char_boundary(name.len().saturating_sub(MAX_NAME_BYTES))..];
    match end.trim() {
        "" | "." | ".." => "file".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use uuid::Uuid;

    use super::{MAX_NAME_BYTES, find, media_type, output_name};
    use crate::work_dir::MachineDir;

    fn names(outputs: &super::Outputs) -> Vec<&str> {
        outputs.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn finds_regular_files_and_follows_no_links() {
        let data = tempfile::tempdir().unwrap();
        let machine = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        let job = machine.job("job").unwrap();
        let root = job.outputs();
        fs::create_dir_all(root.join("a/b")).unwrap();
        for file in ["a/b/deep.csv", "z", "empty"] {
            fs::write(root.join(file), if file == "empty" { "" } else { "x" }).unwrap();
        }
        fs::write(job.stdout(), "").unwrap();
        fs::write(job.stderr(), "oops").unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        symlink("/etc", root.join("links")).unwrap();

        let all = find(&job, 4).unwrap();
        assert_eq!((names(&all), all.too_many), (vec!["a_b_deep.csv", "empty", "stderr.txt", "z"], false));
        let some = find(&job, 3).unwrap();
        assert!(some.too_many && some.files.len() == 3 && names(&some).contains(&"stderr.txt"));
    }

    #[test]
    fn names_fit_the_file_service() {
        assert_eq!(output_name(Path::new("plots/a\\b.png")), "plots_a_b.png");
        assert_eq!(output_name(Path::new(" a\nb ")), "a_b");
        for nothing in [" ", " . ", ".. "] {
            assert_eq!(output_name(Path::new(nothing)), "file");
        }
        let long = output_name(Path::new(&format!("{}/xy.csv", "ä".repeat(300))));
        assert!(long.len() == MAX_NAME_BYTES - 1 && long.ends_with("ä_xy.csv"), "{long}");
        let long = output_name(Path::new(&"x".repeat(300)));
        assert_eq!(long.len(), MAX_NAME_BYTES);
    }

    #[test]
    fn media_types_follow_the_extension() {
        assert_eq!(media_type("stdout.txt"), "text/plain");
        assert_eq!(media_type("a.tar.gz"), "application/gzip");
        assert_eq!(media_type("README"), "application/octet-stream");
    }
}
