//! The folder of a selftest: made, marked as ours, removed.
//!
//! Invariant: a folder without our mark is never written to or removed.

use anyhow::Context;
use std::path::{Path, PathBuf};

const NAME: &str = "headwater-selftest";
const MARK: &str = "this-folder-is-a-headwater-selftest";
/// What the log, its journal and a reserve take at most, without `--fill`.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// A folder of our own.
#[derive(Debug)]
pub(super) struct Own {
    path: PathBuf,
    kept: std::cell::Cell<bool>,
}

impl Own {
    /// A new one in `parent`; what an earlier selftest left there is removed first.
    pub(super) fn make(parent: &Path) -> anyhow::Result<Self> {
        let path = Self::path_in(parent)?;
        if path.exists() {
            remove(&path)?;
        }
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        std::fs::write(path.join(MARK), b"")?;
        let own = Self { path, kept: std::cell::Cell::new(false) };
        let stat = rustix::fs::statvfs(&own.path)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        anyhow::ensure!(free >= FREE_BYTES_MIN, "{} has less than 1 GiB free", parent.display());
        Ok(own)
    }

    /// The one that is there, or a new one; it stays when the value is dropped.
    pub(super) fn resume(parent: &Path) -> anyhow::Result<Self> {
        let path = Self::path_in(parent)?;
        if !path.exists() {
            let own = Self::make(parent)?;
            own.keep();
            return Ok(own);
        }
        ours(&path)?;
        Ok(Self { path, kept: std::cell::Cell::new(true) })
    }

    fn path_in(parent: &Path) -> anyhow::Result<PathBuf> {
        let parent = std::path::absolute(parent)?;
        anyhow::ensure!(parent.is_dir(), "{} is not a folder", parent.display());
        Ok(parent.join(NAME))
    }

    /// Lets it stay when the value is dropped.
    pub(super) fn keep(&self) {
        self.kept.set(true);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log lies in it.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The folder it was made in.
    pub(super) fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.kept.get() {
            // Somebody else's files in it, or a disk that is gone: it stays.
            let _ = remove(&self.path);
        }
    }
}

fn ours(path: &Path) -> anyhow::Result<()> {
    let mark = path.join(MARK);
    anyhow::ensure!(mark.is_file(), "{} is there and not ours: remove it first", path.display());
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    ours(path)?;
    std::fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_marked_folder_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = Own::make(parent.path()).unwrap();
        let path = own.path().to_owned();
        std::fs::write(path.join("more"), b"x").unwrap();
        own.keep();
        drop(own);
        assert!(path.join("more").exists());
        drop(Own::make(parent.path()).unwrap());
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("theirs"), b"x").unwrap();
        assert!(Own::make(parent.path()).is_err() && Own::resume(parent.path()).is_err());
        assert!(path.join("theirs").exists());
    }
}
