//! A disk in memory that keeps no promise beyond POSIX's, for crash tests. Deterministic from a seed.
//!
//! It remembers per file and per folder what is synced. [`FakeDisk::after_crash`] makes one of the states
//! that a power cut may leave: unsynced writes kept, dropped, torn at 512 bytes or reordered, unsynced
//! names kept or dropped, each by itself. [`FakeDisk::after_kill`] is the end of the process alone: the
//! kernel still has everything. Operations are counted, can fail by number, and the world can be stopped
//! after one. Invariant: what was synced without an error is in every state after a crash.
//! Neighbours: `log/tests` crash the engine on it; nothing outside tests uses it.

mod file;
mod gate;
mod world;

pub use world::{Fault, Outcome};

use super::{DirEntry, Disk, DiskFile, Filesystem, Lock, LockGuard, OpenMode, Space};
use gate::Gate;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::{NodeId, World};

/// The disk of one machine from one start of it to its crash. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct FakeDisk {
    world: Arc<Mutex<World>>,
    gate: Arc<Gate>,
}

impl FakeDisk {
    /// An empty disk. The seed decides ids, and what a failed sync leaves behind.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(World::new(seed))
    }

    fn of(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), gate: Arc::default() }
    }

    /// The disk that a power cut at this moment leaves, as a new one; `seed` picks among the possible ones.
    /// This one stays as it is, so that one moment can be left in several ways.
    #[must_use]
    pub fn after_crash(&self, outcome: Outcome, seed: u64) -> Self {
        Self::of(self.world.lock().crashed(outcome, seed))
    }

    /// The disk that is seen after the process was killed: everything written is there, synced or not.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        Self::of(self.world.lock().killed())
    }

    /// Operations so far that change something or make it durable. The first has the number 1.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.world.lock().changes
    }

    /// Operations so far that only read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.world.lock().reads
    }

    /// After change number `change` nothing is carried out any more: every call fails from the change after it on.
    /// `u64::MAX` is never.
    pub fn stop_after(&self, change: u64) {
        self.world.lock().stop_after = Some(change);
    }

    /// Whether a call failed because of [`FakeDisk::stop_after`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.world.lock().stopped
    }

    /// Lets change number `change` fail.
    pub fn fail_change(&self, change: u64, fault: Fault) {
        self.world.lock().faults.insert(change, fault);
    }

    /// Lets read number `read` fail with EIO.
    pub fn fail_read(&self, read: u64) {
        self.world.lock().read_faults.insert(read);
    }

    /// Lets every call for a path below this one fail with EIO from now on: the disk that is mounted there died.
    pub fn kill_below(&self, path: impl Into<PathBuf>) {
        self.world.lock().dead.push(path.into());
    }

    /// Takes a folder in the root away, as if its disk were not mounted, or brings it back. Not counted.
    pub fn unmount(&self, name: &str, away: bool) {
        self.world.lock().unmount(name, away);
    }

    /// Runs `work` on a thread of its own up to its sync number `syncs`, counted from 0, then `beside` here, then the rest of
    /// `work`: two threads that take turns, the same at every run. Work with fewer syncs ends before `beside` begins. What
    /// `beside` does must not wait for `work`.
    pub fn beside(&self, syncs: u64, work: impl FnOnce() + Send, beside: impl FnOnce()) {
        self.gate.run(syncs, work, beside);
    }

    /// Whether a fault that was asked for has struck.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.world.lock().struck
    }

    /// Bytes that fit in all; `None` is without end. Counted in blocks of 4 KiB.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().capacity_bytes = bytes;
    }

    /// The filesystem that holds this path has so many bytes, as far as it says; what fits is another matter.
    pub fn set_size_below(&self, path: impl Into<PathBuf>, bytes: u64) {
        self.world.lock().sizes.push((path.into(), bytes));
    }

    /// Bytes taken, in blocks of 4 KiB.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.world.lock().used_bytes()
    }

    /// Gives the machine another identity: the card was moved.
    pub fn set_machine_id(&self, id: Option<[u8; 16]>) {
        self.world.lock().machine_id = id;
    }

    /// All changes so far, a line each, to be printed when a test fails.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.world.lock().trace.clone()
    }

    /// Adds a line to the trace: what the test is about to do.
    pub fn note(&self, line: &str) {
        self.world.lock().trace.push(line.to_owned());
    }

    /// Paths of all files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.world.lock().files()
    }

    /// What a reader of the file sees.
    #[must_use]
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.world.lock().contents(path.as_ref())
    }

    /// Sets a file's contents, synced, behind the engine's back; makes its folders. Not counted.
    ///
    /// # Panics
    /// When a part of the path is a file.
    pub fn plant(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.world.lock().plant(path.as_ref(), bytes);
    }

    fn handle(&self, node: NodeId, path: &Path) -> Arc<dyn DiskFile> {
        let (world, gate) = (Arc::clone(&self.world), Arc::clone(&self.gate));
        Arc::new(FakeFile { world, gate, node, path: path.to_owned() })
    }

    /// The world, if the disk with this path lives.
    fn at(&self, path: &Path) -> io::Result<MutexGuard<'_, World>> {
        alive(&self.world, path)
    }
}

impl Disk for FakeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.handle(self.at(path)?.open(path, mode)?, path))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Lock> {
        let mut world = self.at(path)?;
        let node = world.open(path, OpenMode::Create)?;
        if world.locks.contains(&node) {
            let text = world.contents(path).unwrap_or_default();
            return Ok(Lock::InUse(String::from_utf8_lossy(&text).trim().to_owned()));
        }
        world.truncate(node, 0)?;
        match world.write(node, &[IoSlice::new(holder.as_bytes())], 0) {
            // As on a real disk: the lock counts, the name in it is a courtesy.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {}
            other => other?,
        }
        world.locks.insert(node);
        Ok(Lock::Held(Box::new(FakeLock { world: Arc::clone(&self.world), node })))
    }

    /// Looked at, not taken: nothing else starts in a test while it is inspected.
    fn lock_shared(&self, path: &Path) -> io::Result<Lock> {
        let mut world = self.world.lock();
        match world.open(path, OpenMode::Read) {
            Ok(node) if world.locks.contains(&node) => {
                let text = world.contents(path).unwrap_or_default();
                Ok(Lock::InUse(String::from_utf8_lossy(&text).trim().to_owned()))
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(Lock::Held(Box::new(FakeReader))),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at(from)?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.remove(path, true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.at(path)?.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.at(path)?.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let world = self.world.lock();
        let below = world.sizes.iter().find(|(root, _)| path.starts_with(root)).map(|(_, n)| *n);
        let total_bytes = below.or(world.capacity_bytes).unwrap_or(1 << 40);
        let free_bytes = total_bytes.saturating_sub(world.used_bytes());
        Ok(Space { total_bytes, free_bytes })
    }

    /// The tree below `path`, as if it were a filesystem of its own.
    fn filesystem(&self, path: &Path) -> io::Result<Option<Box<dyn Filesystem>>> {
        let (world, gate) = (Arc::clone(&self.world), Arc::clone(&self.gate));
        Ok(Some(Box::new(FakeFilesystem { world, gate, path: path.to_owned() })))
    }

    fn machine_id(&self) -> Option<[u8; 16]> {
        self.world.lock().machine_id
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        let mut world = self.world.lock();
        let (a, b) = (world.random.next(), world.random.next());
        Ok((u128::from(a) << 64 | u128::from(b)).to_be_bytes())
    }
}

#[derive(Debug)]
struct FakeFilesystem {
    world: Arc<Mutex<World>>,
    gate: Arc<Gate>,
    path: PathBuf,
}

impl Filesystem for FakeFilesystem {
    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        alive(&self.world, &self.path)?.sync_tree(&self.path)
    }
}

/// An open file; goes on to work after its name is gone.
#[derive(Debug)]
struct FakeFile {
    world: Arc<Mutex<World>>,
    gate: Arc<Gate>,
    node: NodeId,
    /// Where it was when it was opened.
    path: PathBuf,
}

/// The world, if the disk with this path lives.
fn alive<'a>(world: &'a Mutex<World>, path: &Path) -> io::Result<MutexGuard<'a, World>> {
    let mut world = world.lock();
    if world.dead.iter().any(|dead| path.starts_with(dead)) {
        world.struck = true;
        return Err(io::Error::from_raw_os_error(5));
    }
    Ok(world)
}

impl FakeFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        alive(&self.world, &self.path)
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.world()?.read(self.node, buf, at)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.world()?.write(self.node, bufs, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.world()?.sync_data(self.node)
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        self.world()?.reserve(self.node, at, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.world()?.truncate(self.node, len)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.world()?.size_bytes(self.node)
    }
}

#[derive(Debug)]
struct FakeReader;

impl LockGuard for FakeReader {}

#[derive(Debug)]
struct FakeLock {
    world: Arc<Mutex<World>>,
    node: NodeId,
}

impl LockGuard for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.world.lock().locks.remove(&self.node);
    }
}

#[cfg(test)]
mod tests;
