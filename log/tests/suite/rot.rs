//! Bits rot while the log is stopped; a repair follows, and what it leaves is compared with the account.
//!
//! What may be lost is worked out beforehand from the bytes that rot, by code of its own: offsets of the batches that they belong to,
//! in segments and in the journal. Everything else that was owed must be there, and what is missing must be met as a gap.

use crate::keys::key_of;
use crate::lookup::timestamp_of;
use crate::model::{Entry, Model};
use crate::sim::{End, Random, Sim, entries_of};
use headwater_log::batch;
use headwater_log::disk::Disk;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::inspect::{self, CycleFrame, Dump, InspectError};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Partition, ReadError, ReadLimit, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const SECTOR_BYTES: usize = 512;
/// The record that everything goes on with.
const AFTER: &[u8] = b"after#1|";

/// What may be missing afterwards.
#[derive(Debug, Default)]
struct Allowed {
    /// Topics and partitions by handle.
    names: BTreeMap<u64, (String, i32)>,
    /// Offsets by topic and partition.
    offsets: BTreeMap<(String, i32), BTreeSet<i64>>,
    /// Cycles of the journal with metadata in them, or as much as was overwritten: topics may be gone, and settings.
    metadata: bool,
    /// Both slots of a catalog: log starts, roles, settings of topics may be gone.
    catalogs: bool,
    what: Vec<String>,
}

impl Allowed {
    fn lose(&mut self, handle: u64, offsets: impl IntoIterator<Item = i64>) {
        // Those of deleted topics are nobody's.
        if let Some(name) = self.names.get(&handle) {
            self.offsets.entry(name.clone()).or_default().extend(offsets);
        }
    }
}

/// Batches of a segment's file: from byte, to byte, first offset, last.
fn batches(bytes: &[u8]) -> Vec<(usize, usize, i64, i64)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Ok(header) = batch::verify(&bytes[at..]) {
        let end = at + header.size_bytes();
        found.push((at, end, header.base_offset, header.last_offset()));
        at = end;
    }
    found
}

fn handle_of(path: &str) -> Option<u64> {
    let folder = Path::new(path).parent()?.file_name()?.to_str()?.to_owned();
    u64::from_str_radix(folder.rsplit_once('.')?.1, 16).ok()
}

/// Rots a file, and answers with the bytes that are not what they were.
fn spoil(disk: &FakeDisk, path: &str, random: &mut Random, may_go: bool) -> (usize, usize) {
    let mut bytes = disk.contents(path).expect("listed");
    let size = bytes.len();
    let at = random.below(size.max(1) as u64) as usize;
    match random.below(if may_go { 8 } else { 5 }) {
        0..=3 if size > 0 => {
            bytes[at] ^= 1 << random.below(8);
            disk.plant(path, &bytes);
            (at, at + 1)
        }
        5 => {
            let disk: &dyn Disk = disk;
            disk.remove_file(path.as_ref()).expect("there");
            disk.sync_dir(Path::new(path).parent().expect("a folder")).expect("synced");
            (0, size)
        }
        6 => {
            disk.plant(path, &bytes[..at]);
            (at, size)
        }
        _ => {
            let from = at / SECTOR_BYTES * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(size);
            bytes[from..to].fill(0);
            disk.plant(path, &bytes);
            (from, to)
        }
    }
}

fn pick<'a>(random: &mut Random, all: &'a [String]) -> Option<&'a String> {
    all.get(random.below(all.len().max(1) as u64) as usize)
}

fn named(sim: &Sim, part: &str) -> Vec<String> {
    let all = sim.disk.files().into_iter();
    all.filter(|path| path.contains(part) && !path.contains("/quarantine/")).collect()
}

/// Rots something.
fn rot_one(sim: &Sim, random: &mut Random, allowed: &mut Allowed) {
    let disk = &sim.disk;
    match random.below(10) {
        0..=3 => {
            let logs = named(sim, ".log");
            let Some(path) = pick(random, &logs).filter(|path| path.contains("/topics/")) else {
                return;
            };
            let (Some(before), Some(handle)) = (disk.contents(path), handle_of(path)) else {
                return;
            };
            let (from, to) = spoil(disk, path, random, true);
            allowed.what.push(format!("{path} {from}..{to}"));
            for (at, end, first, last) in batches(&before) {
                if at < to && from < end {
                    allowed.lose(handle, first..=last);
                }
            }
        }
        4 | 5 => rot_journal(sim, random, allowed),
        6 => {
            let hints = [named(sim, ".index"), named(sim, ".timeindex"), named(sim, ".labels")];
            if let Some(path) = pick(random, &hints.concat()) {
                spoil(disk, path, random, true);
                allowed.what.push(path.clone());
            }
        }
        7 => {
            let all = named(sim, "/superblock");
            if let Some(path) = pick(random, &all) {
                spoil(disk, path, random, false);
                allowed.what.push(path.clone());
            }
        }
        _ => {
            let dir = &sim.options.dirs[random.below(sim.options.dirs.len() as u64) as usize];
            for name in ["catalog.a", "catalog.b"] {
                let path = dir.join(name).display().to_string();
                // All of it: a bit may fall where nothing is.
                if let Some(bytes) = disk.contents(&path) {
                    disk.plant(&path, &vec![7; bytes.len() / 2]);
                }
                allowed.what.push(path);
            }
            allowed.catalogs = true;
        }
    }
}

/// A file of the ring: what its cycles hold may be lost.
fn rot_journal(sim: &Sim, random: &mut Random, allowed: &mut Allowed) {
    let journals = named(sim, ".journal");
    let Some(path) = pick(random, &journals) else { return };
    let before = sim.on(sim.disk.after_kill());
    let (from, to) = spoil(&sim.disk, path, random, false);
    allowed.what.push(format!("{path} {from}..{to}"));
    let dir = Path::new(path).parent().and_then(Path::parent).expect("a directory");
    // A directory that was never finished has nothing to tell.
    let _ = inspect::cycles(Arc::new(before.disk.clone()), dir, &mut |cycle| {
        let size = (64 + cycle.length as usize).next_multiple_of(4096);
        let at = cycle.place.byte as usize;
        if cycle.place.file != Path::new(path) || at >= to || from >= at + size {
            return ControlFlow::Continue(());
        }
        for frame in cycle.frames.into_iter().flatten() {
            match frame {
                CycleFrame::Batches { handle, offsets: Some((first, last)), .. } => {
                    allowed.lose(handle, first..=last);
                }
                CycleFrame::Extent { handle, offsets: (first, last), .. } => {
                    allowed.lose(handle, first..=last);
                }
                CycleFrame::Ends(_) => {}
                _ => allowed.metadata = true,
            }
        }
        ControlFlow::Continue(())
    });
}

/// First offsets and ends.
type Gaps = Vec<(i64, i64)>;

/// Records that can be read from the log start on, and the gaps between them.
fn read(partition: &Partition) -> (Vec<(i64, Entry)>, Gaps) {
    let limit = match partition.role() {
        Role::Alone => ReadLimit::HighWatermark,
        Role::Leader | Role::Follower => ReadLimit::Written,
    };
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let start = partition.positions().log_start;
    let mut next = start;
    while next < partition.positions().log_end {
        match partition.read(next, 3_000, limit) {
            Ok(found) if found.batches.is_empty() && found.next <= next => break,
            Ok(found) => {
                let entries = found.batches.iter().flat_map(entries_of);
                records.extend(entries.filter(|(at, _)| *at >= start.get()));
                next = found.next;
            }
            Err(ReadError::Damaged { first, next_good, .. }) => {
                let good = next_good.expect("there is a way on");
                assert!(first == next && good > next, "{partition:?}: {first} {good} at {next}");
                gaps.push((first.get(), good.get()));
                next = good;
            }
            Err(other) => panic!("{partition:?}: {other}"),
        }
    }
    (records, gaps)
}

/// Everything, quarantine and lock left aside.
fn contents(disk: &FakeDisk) -> BTreeMap<String, Vec<u8>> {
    let files = disk.files().into_iter();
    let files = files.filter(|path| !path.ends_with(".lock") && !path.contains("/quarantine/"));
    files.map(|path| (path.clone(), disk.contents(&path).expect("listed"))).collect()
}

impl Sim {
    /// Rot, a dry run, a repair, a second one that finds nothing to do, and a look at what is there.
    pub(crate) fn rot_and_repair(mut self, end: End, random: &mut Random) {
        let disk = Arc::new(self.disk.after_kill());
        let clock = Arc::new(self.clock.clone());
        // A directory whose first start never got to its end has nothing to lose.
        let Ok(dump) = Dump::open(disk, clock, &self.options.dirs) else {
            return self.reopen_and_check(end);
        };
        let mut allowed = Allowed { names: dump.handles(), ..Allowed::default() };
        drop(dump);
        for _ in 0..1 + random.below(3) {
            rot_one(&self, random, &mut allowed);
        }
        let what = allowed.what.join(", ");
        self.disk.note(&format!("rot: {what}"));
        let before = contents(&self.disk);
        let dry = match self.repair(false) {
            Ok(dry) => dry,
            // A version that rotted cannot be told from a newer one: refused, and nothing is changed.
            Err(InspectError::FromTheFuture { .. }) => {
                return assert_eq!(contents(&self.disk), before, "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        };
        assert_eq!(contents(&self.disk), before, "{what}: a dry run changes nothing");
        let wet = self.repair(true).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(wet.done, dry.done, "{what}: what was said is what is done");
        assert!(wet.after.is_well(), "{what}: {:#?}\n{:#?}", wet.done, wet.after.findings);
        let again = self.repair(true).expect("again");
        assert!(again.done.is_empty(), "{what}: {:#?}\n{:#?}", wet.done, again.done);
        self = self.on(self.disk.after_kill());
        self.open().unwrap_or_else(|e| panic!("{what}: {e}"));
        let lost = check(&self, &allowed, end, &wet.done);
        assert!(lost == 0 || !wet.done.is_empty(), "{what}: lost in silence");
        self.go_on_after_rot();
    }

    /// Every partition takes records again, and shows them.
    fn go_on_after_rot(&self) {
        for topic in self.log().topics() {
            for partition in topic.partitions() {
                if partition.role() != Role::Alone {
                    continue;
                }
                let end = partition.positions().log_end;
                let key = key_of(AFTER);
                let record = RecordParts {
                    timestamp_ms: timestamp_of(AFTER),
                    key: key.as_deref(),
                    value: Some(AFTER),
                    headers: Headers::EMPTY,
                };
                let appended = partition.append(&[record]).expect("it takes records again");
                assert_eq!(appended.base.offset, end, "{partition:?}");
            }
        }
        while self.log().step_commit() {}
        for topic in self.log().topics() {
            for partition in topic.partitions().iter().filter(|p| p.role() == Role::Alone) {
                let (records, _) = read(partition);
                assert_eq!(records.last().expect("one").1.value, AFTER, "{partition:?}");
            }
        }
        self.log().step_close().expect("closed");
        let verdict = self.on(self.disk.after_kill()).verify().expect("judged");
        assert!(verdict.is_well(), "{:#?}", verdict.findings);
    }
}

/// Compares with the account; how many offsets are lost.
fn check(sim: &Sim, allowed: &Allowed, end: End, done: &[String]) -> usize {
    let Model { topics, .. } = &sim.model;
    let what = allowed.what.join(", ");
    let mut lost = 0;
    for (name, model) in topics.iter().filter(|(_, model)| model.created) {
        let topic =
            sim.log().topic(name).filter(|topic| allowed.catalogs || topic.id() == model.id);
        let Some(topic) = topic else {
            let owes = model.partitions.iter().any(|p| p.acked_end > p.start_max);
            assert!(allowed.metadata || !owes, "{what}: {name} is gone: {done:#?}");
            continue;
        };
        for (number, account) in model.partitions.iter().enumerate() {
            let owed = match (model.memory, end) {
                (false, _) | (true, End::Kill) => account.acked_end.max(account.shown_end),
                (true, End::Power) => account.acked_end,
            };
            let owed = owed.min(account.truncating.unwrap_or(i64::MAX));
            let Some(partition) = topic.partitions().get(number) else {
                let owes = owed > account.start_max && !allowed.metadata;
                assert!(!owes, "{what}: {name}-{number} is gone: {done:#?}");
                continue;
            };
            if partition.missing().is_some() {
                continue;
            }
            let (records, gaps) = read(partition);
            let may_go = allowed.offsets.get(&(name.clone(), number as i32));
            let at =
                format!("{what}: {name}-{number}: {gaps:?} {:?}: {done:#?}", partition.positions());
            let in_gap =
                |offset: i64| gaps.iter().any(|(first, end)| (*first..*end).contains(&offset));
            let records: BTreeMap<i64, Entry> = records.into_iter().collect();
            for offset in account.start_max..owed {
                match records.get(&offset) {
                    Some(entry) => {
                        let known = &account.history[offset as usize];
                        let right = if offset < account.acked_end {
                            known.last() == Some(entry)
                        } else {
                            known.contains(entry)
                        };
                        assert!(right, "offset {offset} is {entry:?}, not {known:?}: {at}");
                    }
                    None if account.gone.contains(&offset) || account.was_hole(offset) => {}
                    None => {
                        // A rotten cycle that no later one proves to have been synced is a torn tail.
                        let is_tail = offset >= partition.positions().log_end.get();
                        lost += usize::from(!is_tail);
                        // Two lives of a topic may not be told apart then.
                        let unsure = allowed.metadata && allowed.catalogs;
                        assert!(
                            in_gap(offset) || is_tail || unsure,
                            "offset {offset} is missing in silence: {at}"
                        );
                        let may = may_go.is_some_and(|offsets| offsets.contains(&offset));
                        assert!(may || unsure, "offset {offset} need not be lost: {at}");
                    }
                }
            }
        }
    }
    lost
}
