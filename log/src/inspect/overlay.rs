//! A disk over a disk: what is written stays in memory, what is read comes from below where nothing was written.
//!
//! With it a directory can be opened, recovered and repaired without one byte of it changing, so that `verify` sees what a
//! start would make of a directory and a dry run of `repair` is the repair itself. Bytes that are written again as they
//! already are take no memory: a recovery that applies a journal to segments that have most of it stays small.
//!
//! Invariant: the disk below is opened for reading only.
//! Neighbours: [`super::survey`] makes one; `disk` has the promises.

use crate::disk::{DirEntry, Disk, DiskFile, Lock, LockGuard, OpenMode, Space, read_full_at};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAGE_BYTES: u64 = 4096;

/// The disk.
#[derive(Debug)]
pub(crate) struct Overlay {
    below: Arc<dyn Disk>,
    /// What differs from the disk below.
    nodes: Mutex<BTreeMap<PathBuf, Node>>,
}

#[derive(Debug, Clone)]
enum Node {
    Gone,
    File(Arc<Layer>),
    /// Made here, or moved here with all that is in it: nothing below shows through.
    Folder,
}

/// Where the truth about a path is.
enum Truth {
    Here(Node),
    Below,
}

/// What was written to one file.
#[derive(Debug)]
struct Layer {
    /// The file below that shows through.
    below: Option<PathBuf>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    pages: BTreeMap<u64, Box<[u8]>>,
    size_bytes: u64,
    /// The file below shows through under this byte.
    below_bytes: u64,
}

impl Overlay {
    pub(crate) fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, nodes: Mutex::default() }
    }

    fn truth(&self, nodes: &BTreeMap<PathBuf, Node>, path: &Path) -> io::Result<Truth> {
        if let Some(node) = nodes.get(path) {
            return match node {
                Node::Gone => Err(io::ErrorKind::NotFound.into()),
                node => Ok(Truth::Here(node.clone())),
            };
        }
        for above in path.ancestors().skip(1) {
            match nodes.get(above) {
                None => {}
                Some(_) => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(Truth::Below)
    }

    /// The layer of a file that is there, made if need be.
    fn layer(&self, nodes: &mut BTreeMap<PathBuf, Node>, path: &Path) -> io::Result<Arc<Layer>> {
        match self.truth(nodes, path)? {
            Truth::Here(Node::File(layer)) => Ok(layer),
            Truth::Here(_) => Err(io::ErrorKind::IsADirectory.into()),
            Truth::Below => {
                let size_bytes = self.below.open(path, OpenMode::Read)?.size_bytes()?;
                let written = Written { size_bytes, below_bytes: size_bytes, ..Written::default() };
                let layer = Layer { below: Some(path.to_owned()), written: Mutex::new(written) };
                let layer = Arc::new(layer);
                nodes.insert(path.to_owned(), Node::File(Arc::clone(&layer)));
                Ok(layer)
            }
        }
    }

    fn handle(&self, layer: Arc<Layer>) -> io::Result<Arc<dyn DiskFile>> {
        let shows = layer.written.lock().below_bytes > 0;
        let below = match &layer.below {
            Some(path) if shows => Some(self.below.open(path, OpenMode::Read)?),
            _ => None,
        };
        Ok(Arc::new(Handle { layer, below }))
    }

    fn names(
        &self,
        nodes: &BTreeMap<PathBuf, Node>,
        path: &Path,
    ) -> io::Result<BTreeMap<String, bool>> {
        let mut names = BTreeMap::new();
        match self.truth(nodes, path)? {
            Truth::Here(Node::Folder) => {}
            Truth::Here(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Truth::Below => {
                for entry in self.below.list(path)? {
                    names.insert(entry.name, entry.is_dir);
                }
            }
        }
        for (child, node) in nodes.range(path.to_owned()..) {
            if !child.starts_with(path) {
                break;
            }
            if child.parent() != Some(path) {
                continue;
            }
            let Some(name) = child.file_name().and_then(|n| n.to_str()) else { continue };
            match node {
                Node::Gone => names.remove(name),
                Node::File(_) => names.insert(name.to_owned(), false),
                Node::Folder => names.insert(name.to_owned(), true),
            };
        }
        Ok(names)
    }

    /// Takes a file, or a folder with everything in it, out of the tree, as paths below `path`.
    fn take(
        &self,
        nodes: &mut BTreeMap<PathBuf, Node>,
        path: &Path,
        inside: &Path,
        taken: &mut Vec<(PathBuf, Node)>,
    ) -> io::Result<()> {
        let is_folder = match self.truth(nodes, path)? {
            Truth::Here(node) => matches!(node, Node::Folder),
            Truth::Below => self.below.list(path).is_ok(),
        };
        if is_folder {
            taken.push((inside.to_owned(), Node::Folder));
            for name in self.names(nodes, path)?.into_keys() {
                self.take(nodes, &path.join(&name), &inside.join(&name), taken)?;
                nodes.remove(&path.join(&name));
            }
        } else {
            taken.push((inside.to_owned(), Node::File(self.layer(nodes, path)?)));
        }
        nodes.insert(path.to_owned(), Node::Gone);
        Ok(())
    }
}

#[derive(Debug)]
struct NoLock;

impl LockGuard for NoLock {}

impl Disk for Overlay {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut nodes = self.nodes.lock();
        if mode == OpenMode::Read && matches!(self.truth(&nodes, path)?, Truth::Below) {
            drop(nodes);
            return self.below.open(path, OpenMode::Read);
        }
        let layer = match self.layer(&mut nodes, path) {
            Err(e)
                if e.kind() == io::ErrorKind::NotFound
                    && matches!(mode, OpenMode::Create | OpenMode::Truncate) =>
            {
                if let Some(folder) = path.parent() {
                    self.names(&nodes, folder)?;
                }
                let layer = Arc::new(Layer { below: None, written: Mutex::default() });
                nodes.insert(path.to_owned(), Node::File(Arc::clone(&layer)));
                layer
            }
            other => other?,
        };
        drop(nodes);
        if mode == OpenMode::Truncate {
            layer.truncate(0);
        }
        self.handle(layer)
    }

    fn lock(&self, _path: &Path, _holder: &str) -> io::Result<Lock> {
        Ok(Lock::Held(Box::new(NoLock)))
    }

    fn lock_shared(&self, _path: &Path) -> io::Result<Lock> {
        Ok(Lock::Held(Box::new(NoLock)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.lock();
        if let Some(folder) = path.parent() {
            self.names(&nodes, folder)?;
        }
        let there = match self.truth(&nodes, path) {
            Ok(Truth::Here(_)) => true,
            Ok(Truth::Below) => {
                self.below.list(path).is_ok() || self.below.open(path, OpenMode::Read).is_ok()
            }
            Err(_) => false,
        };
        if there {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        nodes.insert(path.to_owned(), Node::Folder);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.lock();
        let mut taken = Vec::new();
        self.take(&mut nodes, from, Path::new(""), &mut taken)?;
        for (inside, node) in taken {
            // An empty path joined would leave a slash at the end.
            let path = if inside.as_os_str().is_empty() { to.to_owned() } else { to.join(inside) };
            nodes.insert(path, node);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.lock();
        match self.truth(&nodes, path)? {
            Truth::Here(Node::File(_)) => {}
            Truth::Here(_) => return Err(io::ErrorKind::IsADirectory.into()),
            Truth::Below => drop(self.below.open(path, OpenMode::Read)?),
        }
        nodes.insert(path.to_owned(), Node::Gone);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.lock();
        if !self.names(&nodes, path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        nodes.insert(path.to_owned(), Node::Gone);
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.names(&self.nodes.lock(), path)?;
        Ok(names.into_iter().map(|(name, is_dir)| DirEntry { name, is_dir }).collect())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.below.space(path)
    }

    fn machine_id(&self) -> Option<[u8; 16]> {
        self.below.machine_id()
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        self.below.random_id()
    }
}

impl Layer {
    fn truncate(&self, len: u64) {
        let mut written = self.written.lock();
        let first_gone = len.div_ceil(PAGE_BYTES);
        written.pages.split_off(&first_gone);
        if let Some(page) = written.pages.get_mut(&(len / PAGE_BYTES)) {
            page[(len % PAGE_BYTES) as usize..].fill(0);
        }
        written.below_bytes = written.below_bytes.min(len);
        written.size_bytes = len;
    }
}

#[derive(Debug)]
struct Handle {
    layer: Arc<Layer>,
    below: Option<Arc<dyn DiskFile>>,
}

impl Handle {
    /// The bytes of a page as nobody has written it here.
    fn page_below(&self, written: &Written, page: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE_BYTES as usize].into_boxed_slice();
        let from = page * PAGE_BYTES;
        let shows = written.below_bytes.saturating_sub(from).min(PAGE_BYTES) as usize;
        if let Some(below) = &self.below {
            read_full_at(&**below, &mut bytes[..shows], from)?;
        }
        Ok(bytes)
    }

    fn write_piece(&self, written: &mut Written, piece: &[u8], at: u64) -> io::Result<()> {
        let (page, inside) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
        let range = inside..inside + piece.len();
        if let Some(bytes) = written.pages.get_mut(&page) {
            bytes[range].copy_from_slice(piece);
            return Ok(());
        }
        let mut bytes = self.page_below(written, page)?;
        if at + piece.len() as u64 <= written.below_bytes && bytes[range.clone()] == *piece {
            return Ok(());
        }
        bytes[range].copy_from_slice(piece);
        written.pages.insert(page, bytes);
        Ok(())
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let written = self.layer.written.lock();
        let want = written.size_bytes.saturating_sub(at).min(buf.len() as u64);
        if want == 0 {
            return Ok(0);
        }
        let (page, inside) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
        if let Some(bytes) = written.pages.get(&page) {
            let n = (PAGE_BYTES as usize - inside).min(want as usize);
            buf[..n].copy_from_slice(&bytes[inside..inside + n]);
            return Ok(n);
        }
        // Up to the next page that was written here.
        let next = written.pages.range(page..).next().map_or(u64::MAX, |(p, _)| p * PAGE_BYTES);
        let n = want.min(next - at);
        let shows = written.below_bytes.saturating_sub(at).min(n) as usize;
        match &self.below {
            Some(below) if shows > 0 => below.read_at(&mut buf[..shows], at),
            _ => {
                buf[..n as usize].fill(0);
                Ok(n as usize)
            }
        }
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut written = self.layer.written.lock();
        let mut at = at;
        for buf in bufs {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                let n = ((PAGE_BYTES - at % PAGE_BYTES) as usize).min(rest.len());
                let (piece, behind) = rest.split_at(n);
                self.write_piece(&mut written, piece, at)?;
                at += n as u64;
                rest = behind;
            }
        }
        written.size_bytes = written.size_bytes.max(at);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _at: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.layer.truncate(len);
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.layer.written.lock().size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fake::FakeDisk;

    fn put(disk: &dyn Disk, path: &str, bytes: &[u8], at: u64) {
        let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
        file.write_at(&[IoSlice::new(bytes)], at).unwrap();
    }

    fn contents(disk: &dyn Disk, path: &str) -> Vec<u8> {
        let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.size_bytes().unwrap() as usize];
        let n = read_full_at(&*file, &mut bytes, 0).unwrap();
        bytes.truncate(n);
        bytes
    }

    fn names(disk: &dyn Disk, path: &str) -> Vec<String> {
        disk.list(Path::new(path)).unwrap().into_iter().map(|e| e.name).collect()
    }

    #[test]
    fn it_does_what_a_disk_does_and_the_disk_below_stays_as_it_was() {
        let below = Arc::new(FakeDisk::new(1));
        for folder in ["/d", "/d/a", "/d/b"] {
            below.create_dir(Path::new(folder)).unwrap();
        }
        put(&*below, "/d/a/one", &[7; 10_000], 0);
        put(&*below, "/d/b/two", b"two", 0);
        // The same life on a disk of its own is what the overlay must look like.
        let twin = below.after_kill();
        let files = below.files();
        let before: Vec<_> = files.iter().map(|f| below.contents(f)).collect();
        let over = Overlay::new(Arc::clone(&below) as Arc<dyn Disk>);
        for disk in [&over as &dyn Disk, &twin as &dyn Disk] {
            put(disk, "/d/a/one", b"middle", 4094);
            put(disk, "/d/a/one", b"behind", 12_000);
            let one = disk.open(Path::new("/d/a/one"), OpenMode::Write).unwrap();
            one.truncate(5_000).unwrap();
            one.truncate(6_000).unwrap();
            put(disk, "/d/a/new", b"new", 0);
            disk.remove_file(Path::new("/d/b/two")).unwrap();
            disk.remove_dir(Path::new("/d/b")).unwrap();
            disk.create_dir(Path::new("/d/b")).unwrap();
            disk.rename(Path::new("/d/a"), Path::new("/d/c")).unwrap();
            put(disk, "/d/c/new", b"x", 1);
            disk.rename(Path::new("/d/c/new"), Path::new("/d/b/moved")).unwrap();
        }
        for folder in ["/d", "/d/b", "/d/c"] {
            assert_eq!(names(&over, folder), names(&twin, folder), "{folder}");
        }
        for file in ["/d/b/moved", "/d/c/one"] {
            assert_eq!(contents(&over, file), contents(&twin, file), "{file}");
        }
        for gone in ["/d/a", "/d/a/one", "/d/a/new", "/d/b/two", "/d/c/new"] {
            assert!(over.open(Path::new(gone), OpenMode::Read).is_err(), "{gone}");
        }
        assert!(over.create_dir(Path::new("/d/c")).is_err());
        assert_eq!(below.files(), files);
        assert_eq!(files.iter().map(|f| below.contents(f)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn bytes_written_as_they_are_take_no_memory() {
        let below = Arc::new(FakeDisk::new(1));
        put(&*below, "/f", &[3; 100_000], 0);
        let over = Overlay::new(Arc::clone(&below) as Arc<dyn Disk>);
        put(&over, "/f", &[3; 50_000], 77);
        let nodes = over.nodes.lock();
        let Some(Node::File(layer)) = nodes.get(Path::new("/f")) else { panic!("{nodes:?}") };
        assert_eq!(layer.written.lock().pages.len(), 0);
    }
}
