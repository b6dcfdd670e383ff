//! Working directories of machines and attempts.
//!
//! A killed runner leaves files of its jobs on disk, and several runners may share the disk. All files of a runner are below
//! `<data>/runner/<machine>/`, and the runner holds a lock on `<data>/runner/<machine>.lock`. The runner removes its
//! directory when it stops. After a kill the lock is free, and the next runner that starts removes the directory. Nothing
//! else in the data directory is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Held while a runner starts, so that no other runner sees its directory without its lock.
const START_LOCK: &str = "start.lock";

/// Directory of one runner. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct MachineDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl MachineDir {
    /// Creates the directory of `machine` and removes the directories of dead runners. Blocks.
    pub(crate) fn open(data_dir: &Path, machine: Uuid) -> io::Result<Self> {
        let root = data_dir.join("runner");
        fs::create_dir_all(&root)?;
        // Programs receive these paths and may change their working directory, so the paths must be absolute.
        let root = root.canonicalize()?;
        let start_lock = lock_file(&root.join(START_LOCK))?;
        start_lock.lock()?;
        remove_dead_machines(&root)?;
        let path = root.join(machine.to_string());
        let lock_path = lock_path(&path);
        let lock = lock_file(&lock_path)?;
        lock.try_lock()?;
        private_dir(&path)?;
        Ok(Self { path, lock_path, _lock: lock })
    }

    /// Creates the directory of an attempt.
    pub(crate) fn create_attempt_dir(&self, name: &str) -> io::Result<AttemptDir> {
        let dir = AttemptDir { path: self.path.join(name) };
        for path in [&dir.path, &dir.inputs(), &dir.outputs()] {
            private_dir(path)?;
        }
        Ok(dir)
    }
}

impl Drop for MachineDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path).and_then(|()| fs::remove_file(&self.lock_path)) {
            tracing::warn!(%error, path = %self.path.display(), "removal of the working directory failed");
        }
    }
}

/// Directory of one attempt.
#[derive(Debug)]
pub(crate) struct AttemptDir {
    path: PathBuf,
}

impl AttemptDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    pub(crate) fn outputs(&self) -> PathBuf {
        self.path.join("outputs")
    }

    pub(crate) fn stdout(&self) -> PathBuf {
        self.outputs().join("stdout.txt")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.outputs().join("stderr.txt")
    }

    /// Removes the directory with its contents; errors are logged. Blocks.
    pub(crate) fn remove(self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "removal of an attempt directory failed");
        }
    }
}

fn remove_dead_machines(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let is_machine =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| Uuid::parse_str(name).is_ok());
        if !is_machine {
            continue;
        }
        let lock_path = lock_path(&path);
        let lock = lock_file(&lock_path)?;
        if lock.try_lock().is_err() {
            continue;
        }
        tracing::info!(path = %path.display(), "removing the directory of a dead runner");
        // A directory that cannot be removed must not keep this runner from starting.
        if let Err(error) = remove(&path).and_then(|()| fs::remove_file(&lock_path)) {
            tracing::warn!(%error, path = %path.display(), "removal of the directory of a dead runner failed");
        }
    }
    Ok(())
}

fn lock_path(machine_dir: &Path) -> PathBuf {
    machine_dir.with_extension("lock")
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Restores write permission on all directories below `path`; programs may have removed it.
fn make_writable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use uuid::Uuid;

    use super::{MachineDir, lock_path};

    fn entries(root: &Path) -> Vec<String> {
        let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn machine_dir_removes_only_directories_of_dead_runners() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("runner");
        let dead = root.join(Uuid::now_v7().to_string());
        fs::create_dir_all(dead.join("attempt/outputs")).unwrap();
        fs::write(lock_path(&dead), "").unwrap();
        let unrelated = root.join("unrelated");
        fs::create_dir_all(&unrelated).unwrap();
        let other = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        let attempt = other.create_attempt_dir("attempt").unwrap();
        fs::write(attempt.stdout(), "hello").unwrap();

        let mine = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        assert!(!dead.exists() && !lock_path(&dead).exists());
        assert!(unrelated.exists() && attempt.stdout().exists(), "the other runner is alive");

        attempt.remove();
        assert!(entries(&other.path).is_empty());
        drop((mine, other));
        assert_eq!(entries(&root), ["start.lock", "unrelated"]);
    }

    #[test]
    fn machine_dir_and_attempt_dir_cannot_be_opened_twice() {
        let data = tempfile::tempdir().unwrap();
        let machine = Uuid::now_v7();
        let dir = MachineDir::open(data.path(), machine).unwrap();
        assert!(MachineDir::open(data.path(), machine).is_err());
        let attempt = dir.create_attempt_dir("attempt").unwrap();
        assert!(dir.create_attempt_dir("attempt").is_err());
        assert!(attempt.path().is_absolute() && attempt.inputs().is_dir() && attempt.outputs().is_dir());
    }
}
