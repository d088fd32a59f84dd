//! The tree of the fake disk: names, their syncs, faults by number, and what a crash makes of it all.
//!
//! Invariant: what was not synced, a crash may drop, tear or keep, each piece by itself; what was synced stays.
//! Neighbours: `file` has the bytes of one file, [`super`] is the disk that the log is given.

use super::super::{DirEntry, OpenMode};
use super::file::{BLOCK_BYTES, Change, FileNode, blocks};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};

pub(super) type NodeId = u64;

const ROOT: NodeId = 0;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ENOTEMPTY: i32 = 39;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, nothing done. A sync that fails so loses some of what it should have covered.
    Eio,
    /// ENOSPC, nothing done. A sync that fails so loses some of what it should have covered.
    Enospc,
    /// A write ends in the middle, with EIO; any other operation as [`Fault::Eio`].
    Short,
}

/// What a power cut does with that which is not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is gone.
    DropAll,
    /// All of it is there.
    KeepAll,
    /// All up to a random moment is there.
    Prefix,
    /// All up to the last change, and of that one some sectors.
    TornLast,
    /// Every sector, length and name as it was at some moment since its last sync, each by itself.
    Chaos,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::DropAll, Self::KeepAll, Self::TornLast, Self::Prefix, Self::Chaos];
}

/// An outcome with its moments fixed, the same for all files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// Changes up to this number.
    After(u64),
    /// Changes before this number, and some sectors of it.
    Inside(u64),
    /// Anything.
    Chaos,
}

/// SplitMix64: small, and every seed gives another sequence.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Debug, Clone)]
enum Node {
    Dir(DirNode),
    File(FileNode),
}

#[derive(Debug, Clone, Default)]
struct DirNode {
    now: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// One change of names, whole or not at all: a rename takes one name away and sets another.
#[derive(Debug, Clone)]
struct NameChange {
    number: u64,
    names: Vec<(NodeId, String, Option<NodeId>)>,
}

#[derive(Debug)]
pub(super) struct World {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    pending_names: Vec<NameChange>,
    pub(super) random: Random,
    pub(super) changes: u64,
    pub(super) reads: u64,
    pub(super) stop_after: Option<u64>,
    pub(super) stopped: bool,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) read_faults: BTreeSet<u64>,
    pub(super) struck: bool,
    /// Paths below which everything fails.
    pub(super) dead: Vec<PathBuf>,
    /// Folders of the root that are away.
    away: BTreeMap<String, NodeId>,
    pub(super) capacity_bytes: Option<u64>,
    /// Sizes of filesystems, as far as they are asked for, by path.
    pub(super) sizes: Vec<(PathBuf, u64)>,
    pub(super) machine_id: Option<[u8; 16]>,
    pub(super) locks: BTreeSet<NodeId>,
    pub(super) trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: 1,
            pending_names: vec![],
            random: Random::new(seed),
            changes: 0,
            reads: 0,
            stop_after: None,
            stopped: false,
            faults: BTreeMap::new(),
            read_faults: BTreeSet::new(),
            struck: false,
            dead: vec![],
            away: BTreeMap::new(),
            capacity_bytes: None,
            sizes: Vec::new(),
            machine_id: Some([7; 16]),
            locks: BTreeSet::new(),
            trace: vec![],
        }
    }

    /// The same tree, seen by the next process: counters, faults and locks are gone.
    pub(super) fn killed(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            next_node: self.next_node,
            // Numbers start again at 1, and what is pending was before that.
            pending_names: self.pending_names.clone(),
            capacity_bytes: self.capacity_bytes,
            sizes: self.sizes.clone(),
            machine_id: self.machine_id,
            changes: self.changes,
            random: self.random.clone(),
            away: self.away.clone(),
            ..Self::new(0)
        }
    }

    pub(super) fn crashed(&self, outcome: Outcome, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let cut = match outcome {
            Outcome::DropAll => Cut::After(0),
            Outcome::KeepAll => Cut::After(u64::MAX),
            Outcome::TornLast => Cut::Inside(self.changes.max(1)),
            Outcome::Prefix => Cut::After(random.below(self.changes + 1)),
            Outcome::Chaos => Cut::Chaos,
        };
        let mut left = self.killed();
        left.changes = 0;
        left.random = Random::new(random.next());
        for change in std::mem::take(&mut left.pending_names) {
            let keep = match cut {
                Cut::After(last) => change.number <= last,
                Cut::Inside(torn) => change.number < torn || random.below(2) == 0,
                Cut::Chaos => random.below(2) == 0,
            };
            if keep {
                left.make_durable(&change);
            }
        }
        for node in left.nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.now.clone_from(&dir.durable),
                Node::File(file) => *file = file.crashed(cut, &mut random),
            }
        }
        left
    }

    pub(super) fn unmount(&mut self, name: &str, away: bool) {
        let Some(Node::Dir(root)) = self.nodes.get_mut(&ROOT) else { return };
        if !away {
            // What has been made in its place meanwhile stays.
            let there = root.now.contains_key(name);
            if let Some(node) = self.away.remove(name).filter(|_| !there) {
                root.now.insert(name.to_owned(), node);
                root.durable.insert(name.to_owned(), node);
            }
        } else if let Some(node) = root.now.remove(name) {
            root.durable.remove(name);
            self.away.insert(name.to_owned(), node);
        }
    }

    // --- counting and failing ---

    fn off() -> io::Error {
        io::Error::other("the power is off")
    }

    /// Counts an operation that changes something. `Ok(Some(fault))` must be carried out by the caller.
    fn count_change(&mut self, what: impl FnOnce() -> String) -> io::Result<Option<Fault>> {
        if self.stop_after.is_some_and(|last| self.changes >= last) {
            self.stopped = true;
            return Err(Self::off());
        }
        self.changes += 1;
        let fault = self.faults.get(&self.changes).copied();
        self.struck |= fault.is_some();
        let failed = fault.map(|fault| format!(" FAILS: {fault:?}")).unwrap_or_default();
        self.trace.push(format!("{} {}{failed}", self.changes, what()));
        Ok(fault)
    }

    /// For operations that fail without doing anything.
    fn count_simple_change(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.count_change(what)?.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn count_read(&mut self) -> io::Result<()> {
        if self.stopped {
            return Err(Self::off());
        }
        self.reads += 1;
        if self.read_faults.contains(&self.reads) {
            self.struck = true;
            return Err(error(Fault::Eio));
        }
        Ok(())
    }

    // --- names ---

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                at = *self.dir(at)?.now.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    /// The folder a path lies in, and its last part.
    fn place(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok((self.find(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    fn change_names(&mut self, names: Vec<(NodeId, String, Option<NodeId>)>) {
        for (dir, name, node) in &names {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(dir) {
                set(&mut dir.now, name, *node);
            }
        }
        self.pending_names.push(NameChange { number: self.changes, names });
    }

    fn make_durable(&mut self, change: &NameChange) {
        for (dir, name, node) in &change.names {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(dir) {
                set(&mut dir.durable, name, *node);
            }
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<NodeId> {
        match self.find(path) {
            Ok(node) => {
                if !matches!(self.nodes.get(&node), Some(Node::File(_))) {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                if mode == OpenMode::Truncate {
                    self.truncate(node, 0)?;
                } else {
                    self.count_read()?;
                }
                Ok(node)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if matches!(mode, OpenMode::Read | OpenMode::Write) {
                    self.count_read()?;
                    return Err(e);
                }
                let (dir, name) = self.place(path)?;
                self.dir(dir)?;
                self.count_simple_change(|| format!("create {}", path.display()))?;
                let node = self.add(Node::File(FileNode::default()));
                self.change_names(vec![(dir, name, Some(node))]);
                Ok(node)
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if self.dir(dir)?.now.contains_key(&name) {
            self.count_read()?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.count_simple_change(|| format!("create dir {}", path.display()))?;
        let node = self.add(Node::Dir(DirNode::default()));
        self.change_names(vec![(dir, name, Some(node))]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if let Some(there) = self.dir(to_dir)?.now.get(&to_name)
            && let Ok(dir) = self.dir(*there)
            && !dir.now.is_empty()
        {
            return Err(io::Error::from_raw_os_error(ENOTEMPTY));
        }
        self.count_simple_change(|| format!("rename {} to {}", from.display(), to.display()))?;
        self.change_names(vec![(from_dir, from_name, None), (to_dir, to_name, Some(node))]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let node = self.find(path)?;
        match (self.dir(node), is_dir) {
            (Ok(dir), true) if !dir.now.is_empty() => {
                return Err(io::Error::from_raw_os_error(ENOTEMPTY));
            }
            (Ok(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
            (Err(e), true) => return Err(e),
            _ => {}
        }
        let (dir, name) = self.place(path)?;
        self.count_simple_change(|| format!("remove {}", path.display()))?;
        self.change_names(vec![(dir, name, None)]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        let fault = self.count_change(|| format!("sync dir {}", path.display()))?;
        let all = std::mem::take(&mut self.pending_names);
        for change in all {
            let mine = change.names.iter().any(|(d, ..)| *d == dir);
            // Of a sync that failed some arrived. Names are metadata, which the filesystem keeps: the rest stays dirty.
            if mine && (fault.is_none() || self.random.below(2) == 0) {
                self.make_durable(&change);
            } else {
                self.pending_names.push(change);
            }
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    /// A sync of the whole tree below `path`: contents, lengths and names. One that fails loses of each file what its own
    /// sync would have.
    pub(super) fn sync_tree(&mut self, path: &Path) -> io::Result<()> {
        let root = self.find(path)?;
        let fault = self.count_change(|| format!("sync filesystem {}", path.display()))?;
        let (mut dirs, mut files, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![root]);
        while let Some(id) = open.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                dirs.insert(id);
                open.extend(dir.now.values());
            } else {
                files.insert(id);
            }
        }
        let mut random = self.random.clone();
        for change in std::mem::take(&mut self.pending_names) {
            let mine = change.names.iter().any(|(d, ..)| dirs.contains(d));
            if mine && (fault.is_none() || random.below(2) == 0) {
                self.make_durable(&change);
            } else {
                self.pending_names.push(change);
            }
        }
        for id in files {
            match fault {
                None => self.file(id)?.sync(),
                Some(_) => self.file(id)?.lose(&mut random),
            }
        }
        self.random = random;
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.count_read()?;
        let dir = self.dir(self.find(path)?)?;
        let entry = |(name, node): (&String, &NodeId)| DirEntry {
            name: name.clone(),
            is_dir: self.dir(*node).is_ok(),
        };
        Ok(dir.now.iter().map(entry).collect())
    }

    // --- contents ---

    fn file(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn read(&mut self, node: NodeId, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.count_read()?;
        let file = self.file(node)?;
        let rest = file.now.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    pub(super) fn size_bytes(&mut self, node: NodeId) -> io::Result<u64> {
        self.count_read()?;
        Ok(self.file(node)?.now.len() as u64)
    }

    pub(super) fn write(&mut self, node: NodeId, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut data: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let name = self.name_of(node);
        let fault = self.count_change(|| format!("write {name} {} at {at}", data.len()))?;
        match fault {
            Some(Fault::Short) => data.truncate(data.len() / 2),
            Some(fault) => return Err(error(fault)),
            None => {}
        }
        // A full disk takes what still fits, as the kernel does.
        let fits = self.allocate(node, at, data.len() as u64)?;
        data.truncate(fits as usize);
        let full = fits < bufs.iter().map(|b| b.len() as u64).sum() && fault.is_none();
        let number = self.changes;
        if !data.is_empty() {
            self.file(node)?.change(number, Change::Write(at as usize, data));
        }
        match fault {
            Some(fault) => Err(error(fault)),
            None if full => Err(error(Fault::Enospc)),
            None => Ok(()),
        }
    }

    pub(super) fn sync_data(&mut self, node: NodeId) -> io::Result<()> {
        let name = self.name_of(node);
        let fault = self.count_change(|| format!("sync {name}"))?;
        match fault {
            None => self.file(node)?.sync(),
            Some(_) => {
                let mut random = self.random.clone();
                self.file(node)?.lose(&mut random);
                self.random = random;
            }
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    pub(super) fn reserve(&mut self, node: NodeId, at: u64, len: u64) -> io::Result<()> {
        let name = self.name_of(node);
        self.count_simple_change(|| format!("reserve {name} {len} at {at}"))?;
        if self.needs(node, at, len)? > self.free_bytes() {
            return Err(error(Fault::Enospc));
        }
        self.allocate(node, at, len)?;
        Ok(())
    }

    pub(super) fn truncate(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        let name = self.name_of(node);
        self.count_simple_change(|| format!("truncate {name} to {len}"))?;
        let number = self.changes;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.file(node)?.change(number, Change::Truncate(len));
        Ok(())
    }

    // --- room ---

    fn needs(&mut self, node: NodeId, at: u64, len: u64) -> io::Result<u64> {
        let file = self.file(node)?;
        let new = blocks(at, len).filter(|block| !file.blocks.contains(block)).count();
        Ok(new as u64 * BLOCK_BYTES)
    }

    /// Allocates what fits of `at..at + len` and says how many bytes that are.
    fn allocate(&mut self, node: NodeId, at: u64, len: u64) -> io::Result<u64> {
        let mut free = self.free_bytes() / BLOCK_BYTES;
        let file = self.file(node)?;
        for block in blocks(at, len) {
            if file.blocks.contains(&block) {
                continue;
            }
            if free == 0 {
                return Ok((block * BLOCK_BYTES).saturating_sub(at));
            }
            free -= 1;
            file.blocks.insert(block);
        }
        Ok(len)
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.walk().iter().map(|(_, file)| file.blocks.len() as u64 * BLOCK_BYTES).sum()
    }

    // --- looking in from outside ---

    fn walk(&self) -> Vec<(String, &FileNode)> {
        let mut found = vec![];
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, node)) = open.pop() {
            match self.nodes.get(&node) {
                Some(Node::File(file)) => found.push((path, file)),
                Some(Node::Dir(dir)) => {
                    open.extend(
                        dir.now.iter().map(|(name, node)| (format!("{path}/{name}"), *node)),
                    );
                }
                None => {}
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    fn name_of(&self, node: NodeId) -> String {
        for dir in self.nodes.values() {
            if let Node::Dir(dir) = dir
                && let Some((name, _)) = dir.now.iter().find(|(_, n)| **n == node)
            {
                return format!("{name}#{node}");
            }
        }
        format!("(unlinked)#{node}")
    }

    pub(super) fn files(&self) -> Vec<String> {
        self.walk().into_iter().map(|(path, _)| path).collect()
    }

    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        match self.nodes.get(&self.find(path).ok()?) {
            Some(Node::File(file)) => Some(file.now.clone()),
            _ => None,
        }
    }

    pub(super) fn plant(&mut self, path: &Path, bytes: &[u8]) {
        let mut at = ROOT;
        let parts: Vec<String> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        for (i, name) in parts.iter().enumerate() {
            let found = self.dir(at).ok().and_then(|dir| dir.now.get(name).copied());
            let is_file = i + 1 == parts.len();
            let next = match found {
                Some(node) if is_file => {
                    self.nodes.insert(node, Node::File(FileNode::synced(bytes)));
                    node
                }
                Some(node) => node,
                None if is_file => self.add(Node::File(FileNode::synced(bytes))),
                None => self.add(Node::Dir(DirNode::default())),
            };
            let Some(Node::Dir(dir)) = self.nodes.get_mut(&at) else {
                panic!("{} has a file where a folder should be", path.display());
            };
            dir.now.insert(name.clone(), next);
            dir.durable.insert(name.clone(), next);
            at = next;
        }
    }
}

fn set(names: &mut BTreeMap<String, NodeId>, name: &str, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}

fn error(fault: Fault) -> io::Error {
    io::Error::from_raw_os_error(match fault {
        Fault::Eio | Fault::Short => EIO,
        Fault::Enospc => ENOSPC,
    })
}
