//! Where jobs run.
//!
//! The problem: a runner that was killed leaves its jobs' files behind, and two runners may share a disk.
//!
//! The invariant: everything is below `<data>/runner/<machine>/`, which belongs to whoever holds the lock on
//! `<machine>.lock` beside it, and is removed by its owner or, once the lock is free, by the next runner that starts. Nothing
//! else in the data directory is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Held while a runner makes its directory and looks for others', so that none is seen half made.
const START_LOCK: &str = "start.lock";

/// One runner's directory. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct MachineDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl MachineDir {
    /// Makes the directory of `machine`, and removes those of runners that are no more. Blocks.
    pub(crate) fn open(data_dir: &Path, machine: Uuid) -> io::Result<Self> {
        let root = data_dir.join("runner");
        fs::create_dir_all(&root)?;
        // The program gets these paths and may change its directory.
        let root = root.canonicalize()?;
        let starting = lock_file(&root.join(START_LOCK))?;
        starting.lock()?;
        remove_leftovers(&root)?;
        let path = root.join(machine.to_string());
        let lock_path = lock_path(&path);
        let lock = lock_file(&lock_path)?;
        lock.try_lock()?;
        private_dir(&path)?;
        Ok(Self { path, lock_path, _lock: lock })
    }

    /// Makes a directory for a run.
    pub(crate) fn job(&self, name: &str) -> io::Result<JobDir> {
        let dir = JobDir { path: self.path.join(name) };
        for path in [&dir.path, &dir.inputs(), &dir.outputs()] {
            private_dir(path)?;
        }
        Ok(dir)
    }
}

impl Drop for MachineDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path).and_then(|()| fs::remove_file(&self.lock_path)) {
            tracing::warn!(%error, path = %self.path.display(), "working directory can't be removed");
        }
    }
}

/// The directory of one run.
#[derive(Debug)]
pub(crate) struct JobDir {
    path: PathBuf,
}

impl JobDir {
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

    /// Removes it and all that is in it. Blocks.
    pub(crate) fn remove(self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a job's directory can't be removed");
        }
    }
}

fn remove_leftovers(root: &Path) -> io::Result<()> {
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
        tracing::info!(path = %path.display(), "removing what a runner left behind");
        // What can't be removed must not keep this runner from working.
        if let Err(error) = remove(&path).and_then(|()| fs::remove_file(&lock_path)) {
            tracing::warn!(%error, path = %path.display(), "leftovers can't be removed");
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
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A program may have made directories that not even their owner may change.
fn open_up(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use uuid::Uuid;

    use super::{MachineDir, lock_path};

    fn below(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn removes_what_the_dead_left_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("runner");
        let dead = root.join(Uuid::now_v7().to_string());
        fs::create_dir_all(dead.join("job/outputs")).unwrap();
        fs::write(lock_path(&dead), "").unwrap();
        let strange = root.join("somebody's");
        fs::create_dir_all(&strange).unwrap();
        let other = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        let job = other.job("job").unwrap();
        fs::write(job.stdout(), "hello").unwrap();

        let mine = MachineDir::open(data.path(), Uuid::now_v7()).unwrap();
        assert!(!dead.exists() && !lock_path(&dead).exists());
        assert!(strange.exists() && job.stdout().exists(), "the other runner lives");

        job.remove();
        assert!(below(&other.path).is_empty());
        drop((mine, other));
        assert_eq!(below(&root), ["somebody's", "start.lock"]);
    }

    #[test]
    fn a_machine_has_one_directory_and_a_run_too() {
        let data = tempfile::tempdir().unwrap();
        let machine = Uuid::now_v7();
        let dir = MachineDir::open(data.path(), machine).unwrap();
        assert!(MachineDir::open(data.path(), machine).is_err());
        let job = dir.job("job").unwrap();
        assert!(dir.job("job").is_err());
        assert!(job.path().is_absolute() && job.inputs().is_dir() && job.outputs().is_dir());
    }
}
