//! Folders for data that is thrown away: on a real disk, where a sync costs what it costs.
//!
//! Invariant: the folder goes when its value is dropped. Neighbours: the demo and the benchmarks.

use anyhow::Context;
use std::path::Path;
use tempfile::TempDir;

/// The magic number of tmpfs (statfs(2)).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A new folder in `parent`, or in the system's place for such things; in the current folder where that place is memory.
pub(crate) fn folder(parent: Option<&Path>) -> anyhow::Result<TempDir> {
    let system = std::env::temp_dir();
    let parent = match parent {
        Some(parent) => parent,
        None if is_memory(&system) => Path::new("."),
        None => &system,
    };
    let parent = std::path::absolute(parent)?;
    tempfile::Builder::new()
        .prefix("headwater-")
        .tempdir_in(&parent)
        .with_context(|| format!("making a folder in {}", parent.display()))
}

fn is_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_its_value() {
        let folder = folder(None).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        assert!(!is_memory(Path::new("/proc")));
        drop(folder);
        assert!(!path.exists());
    }
}
