//! A disk whose locks are granted: for who holds the directory's lock already and lets the log open it.
//!
//! Invariant: made only while the real lock is held.

use crate::disk::{DirEntry, Disk, DiskFile, Lock, LockGuard, OpenMode, Space};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The disk.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Arc<dyn Disk>);

#[derive(Debug)]
struct Granted;

impl LockGuard for Granted {}

impl Disk for Held {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path, mode)
    }
    fn lock(&self, _path: &Path, _holder: &str) -> io::Result<Lock> {
        Ok(Lock::Held(Box::new(Granted)))
    }
    fn lock_shared(&self, _path: &Path) -> io::Result<Lock> {
        Ok(Lock::Held(Box::new(Granted)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
    fn machine_id(&self) -> Option<[u8; 16]> {
        self.0.machine_id()
    }
    fn random_id(&self) -> io::Result<[u8; 16]> {
        self.0.random_id()
    }
}
