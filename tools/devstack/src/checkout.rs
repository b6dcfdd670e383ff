//! Directories of this checkout.
//!
//! ```text
//! .dev/cache      downloads and installed tools: Apache Kafka's jars, cargo-deny, cargo-machete, this crate's own build
//! .dev/up         the stack of `./dev up`: data, logs, process ids, secrets
//! .dev/test-PID   one run of `./dev test`, deleted when the run ends
//! .dev/bench-PID  one run of `./dev bench`, deleted when the run ends
//! ```

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use crate::Error;

/// Returns the root of the checkout that this crate was compiled in.
#[must_use]
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::canonicalize(&root).unwrap_or(root)
}

/// Returns `.dev`, which holds everything that `./dev` writes.
pub(crate) fn dev() -> PathBuf {
    root().join(".dev")
}

/// Returns the directory of downloads and installed tools, which all runs share.
pub(crate) fn cache() -> PathBuf {
    dev().join("cache")
}

/// Returns the directory of the stack that `./dev up` runs.
pub(crate) fn up() -> PathBuf {
    dev().join("up")
}

/// Formats a path relative to the checkout, or in full if it lies outside.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Returns the absolute path without symbolic links and `..`; the path need not exist.
///
/// Servers are recognized by the directory in their command line, so one directory needs one spelling.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let path = std::path::absolute(path).map_err(Error::io("resolve", path))?;
    let mut existing = path.as_path();
    let mut missing: Vec<OsString> = Vec::new();
    let mut resolved = loop {
        match (fs::canonicalize(existing), existing.components().next_back(), existing.parent()) {
            (Ok(resolved), ..) => break resolved,
            (Err(_), Some(last), Some(parent)) => {
                missing.push(last.as_os_str().to_owned());
                existing = parent;
            }
            (Err(source), ..) => return Err(Error::Io { operation: "resolve", path, source }),
        }
    };
    for name in missing.iter().rev() {
        match Path::new(name).components().next() {
            Some(Component::ParentDir) => drop(resolved.pop()),
            _ => resolved.push(name),
        }
    }
    Ok(resolved)
}

/// Creates a directory and its parents.
pub(crate) fn create_directory(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))
}

/// Deletes a file or a directory with its contents. A missing one is no error.
pub(crate) fn delete(path: &Path) -> Result<(), Error> {
    let deleted = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    match deleted {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file with the default mode.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("write", path))
}

/// Replaces a file at once by one that only its owner can read (mode 0600).
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};

    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // A file of an interrupted run could have another mode.
    delete(&new)?;
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| fs::rename(&new, path)).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::{absolute, delete, relative, root, write_private};

    #[test]
    fn private_file_has_mode_0600_when_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "OLD=1\n").unwrap();
        fs::write(directory.path().join("env.new"), "leftover").unwrap();
        write_private(&path, "KEY=secret\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "KEY=secret\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!directory.path().join("env.new").exists());
    }

    #[test]
    fn absolute_resolves_links_of_missing_paths() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir(real.join("target")).unwrap();
        symlink(real.join("target"), real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/a/../b/c")).unwrap(), real.join("target/b/c"));
    }

    #[test]
    fn delete_ignores_missing_paths_and_keeps_link_targets() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::create_dir(&target).unwrap();
        symlink(&target, directory.path().join("link")).unwrap();
        delete(&directory.path().join("link")).unwrap();
        delete(&directory.path().join("missing")).unwrap();
        assert!(target.is_dir());
    }

    #[test]
    fn relative_shortens_paths_inside_the_checkout() {
        assert_eq!(relative(&root().join(".dev/up")), ".dev/up");
        assert_eq!(relative("/elsewhere".as_ref()), "/elsewhere");
    }
}
