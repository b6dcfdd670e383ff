//! Finds the files that a program left in its `outputs/` directory.
//!
//! A program may leave links, sockets, a million files, or names that other systems reject. Only regular files below
//! `outputs/` count. At most `limit` of them are returned, and a truncation is reported.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::work_dir::AttemptDir;

/// Maximum length of a file name, in bytes. The file service limits both bytes and characters; this satisfies both limits.
const MAX_NAME_BYTES: usize = 200;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Output {
    /// Name of the uploaded file, derived from its path below `outputs/`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutputFiles {
    /// Sorted by name.
    pub(crate) files: Vec<Output>,
    /// Whether the limit left files out.
    pub(crate) truncated: bool,
}

/// Returns up to `limit` files to upload. Blocks.
pub(crate) fn find_outputs(dir: &AttemptDir, limit: usize) -> io::Result<OutputFiles> {
    let root = dir.outputs();
    let captured = [dir.stdout(), dir.stderr()];
    let mut files = Vec::new();
    // The captured output comes first, so that the limit never drops it.
    for path in &captured {
        if fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            files.push(output(&root, path));
        }
    }
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // The type of the entry itself: a link is neither a file nor a directory.
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
                return Ok(sorted_outputs(files, true));
            }
            files.push(output(&root, &path));
        }
    }
    Ok(sorted_outputs(files, false))
}

/// Returns the media type for the extension of a name.
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

fn sorted_outputs(mut files: Vec<Output>, truncated: bool) -> OutputFiles {
    files.sort();
    OutputFiles { files, truncated }
}

fn output(root: &Path, path: &Path) -> Output {
    Output { name: output_name(path.strip_prefix(root).unwrap_or(path)), path: path.to_owned() }
}

/// Converts a relative path to a file name: one trimmed component; a name that is too long keeps its end.
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

    use super::{MAX_NAME_BYTES, OutputFiles, find_outputs, media_type, output_name};
    use crate::work_dir::MachineDir;

    fn names(outputs: &OutputFiles) -> Vec<&str> {
        outputs.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn find_outputs_returns_regular_files_without_links() {
        let data = tempfile::tempdir().unwrap();
        let machine = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        let attempt = machine.create_attempt_dir("attempt").unwrap();
        let root = attempt.outputs();
        fs::create_dir_all(root.join("a/b")).unwrap();
        for file in ["a/b/deep.csv", "z", "empty"] {
            fs::write(root.join(file), if file == "empty" { "" } else { "x" }).unwrap();
        }
        fs::write(attempt.stdout(), "").unwrap();
        fs::write(attempt.stderr(), "oops").unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        symlink("/etc", root.join("links")).unwrap();

        let all = find_outputs(&attempt, 4).unwrap();
        assert_eq!((names(&all), all.truncated), (vec!["a_b_deep.csv", "empty", "stderr.txt", "z"], false));
        let some = find_outputs(&attempt, 3).unwrap();
        assert!(some.truncated && some.files.len() == 3 && names(&some).contains(&"stderr.txt"));
    }

    #[test]
    fn output_name_fits_the_file_service() {
        assert_eq!(output_name(Path::new("plots/a\\b.png")), "plots_a_b.png");
        assert_eq!(output_name(Path::new(" a\nb ")), "a_b");
        for blank in [" ", " . ", ".. "] {
            assert_eq!(output_name(Path::new(blank)), "file");
        }
        let long = output_name(Path::new(&format!("{}/xy.csv", "ä".repeat(300))));
        assert!(long.len() == MAX_NAME_BYTES - 1 && long.ends_with("ä_xy.csv"), "{long}");
        let long = output_name(Path::new(&"x".repeat(300)));
        assert_eq!(long.len(), MAX_NAME_BYTES);
    }

    #[test]
    fn media_type_follows_the_extension() {
        assert_eq!(media_type("stdout.txt"), "text/plain");
        assert_eq!(media_type("a.tar.gz"), "application/gzip");
        assert_eq!(media_type("README"), "application/octet-stream");
    }
}
