//! `headwater log verify`: is everything there, whole, and in agreement?
//!
//! In order: the superblock, both catalog slots, the ring's files; what a start would make of it (on an overlay); then, of the
//! state that the start came to, every segment batch by batch with its indexes; at last what belongs to nobody.
//!
//! Invariant: a directory as a crash leaves it (torn tail, half-written hints, folders of a deleted topic) has notices, no damage.
//! Neighbours: [`super::segment`] reads, `recovery` starts, [`super::repair`] acts on the same view.

use super::finding::{Finding, Lost, Severity};
use super::hints;
use super::rebuild;
use super::segment::{Bounds, Step, Walk};
use super::survey::{self, InspectError, Survey};
use crate::catalog::Found;
use crate::clock::Clock;
use crate::disk::{Disk, OpenMode, read_full_at};
use crate::journal;
use crate::segment::{Segment, path};
use crate::{Offset, Partition};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Findings that are told; further ones are counted.
const FINDINGS_MAX: usize = 1_000;
/// An entry of Kafka's offset index.
const INDEX_ENTRY_BYTES: u64 = 8;
/// Entries of an index read at a time.
const INDEX_PIECE_BYTES: usize = 64 << 10;

const NEXT_START: &str = "nothing to do: the next start tidies it up";

/// How far an inspection has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Bytes read of segments.
    pub done_bytes: u64,
    /// Bytes of segments in all.
    pub total_bytes: u64,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Topics, internal ones included.
    pub topics: u64,
    /// Partitions.
    pub partitions: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Batches whose CRC was right.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Journal cycles that a start would apply again.
    pub cycles: u64,
}

/// What became of an inspection.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Damage first; at most 1,000.
    pub findings: Vec<Finding>,
    /// Further damage and notices, not told.
    pub left_out: u64,
    /// What was looked at.
    pub figures: Figures,
    /// The last process did not close the directory.
    pub unclean: bool,
}

impl Verdict {
    /// Nothing acknowledged is missing and nothing is wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.damage() == 0
    }

    /// How many findings are damage.
    #[must_use]
    pub fn damage(&self) -> usize {
        self.findings.iter().filter(|f| f.severity == Severity::Damage).count()
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            return self.findings.push(finding);
        }
        self.left_out += 1;
        // Damage is told rather than a notice.
        if finding.severity == Severity::Damage
            && let Some(notice) = self.findings.iter_mut().rfind(|f| f.severity == Severity::Notice)
        {
            *notice = finding;
        }
    }
}

/// Looks at everything in the data directories of one log, which no process uses. Nothing is changed. `watch` is told how far
/// it is.
///
/// # Errors
/// [`InspectError`]: there is nothing to judge. Damage is no error, it is what is looked for.
pub fn verify(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dirs: &[PathBuf],
    watch: &mut dyn FnMut(Progress),
) -> Result<Verdict, InspectError> {
    let surveys = survey::take_all(&disk, dirs)?;
    judge(&disk, &surveys, clock, watch)
}

/// As [`verify`], of directories that were surveyed.
pub(crate) fn judge(
    disk: &Arc<dyn Disk>,
    surveys: &[Survey],
    clock: Arc<dyn Clock>,
    watch: &mut dyn FnMut(Progress),
) -> Result<Verdict, InspectError> {
    let mut verdict = Verdict::default();
    for survey in surveys {
        judge_files(survey, &mut verdict);
    }
    // With one of these gone a start would make a new directory, or none.
    if surveys.iter().any(|survey| survey.catalog().is_none()) {
        return Ok(verdict);
    }
    let dirs: Vec<PathBuf> = surveys.iter().map(|survey| survey.dir.clone()).collect();
    let (log, recovery, overlay) = match survey::start(disk, &dirs, clock) {
        Ok(started) => started,
        Err(error) => {
            let what = format!("a node cannot be started on it: {error}");
            verdict.add(Finding::damage(&dirs[0], what));
            return Ok(verdict);
        }
    };
    verdict.unclean = recovery.unclean;
    verdict.figures.cycles = recovery.cycles_replayed;
    for finding in &recovery.findings {
        let moved = recovery.moved_machine && finding.contains("another machine");
        verdict.add(if moved {
            Finding::notice(&dirs[0], finding, "nothing to do if it was moved, not copied")
        } else {
            Finding::damage(&dirs[0], finding)
        });
    }
    let topics = log.topics();
    let (here, elsewhere): (Vec<&Arc<Partition>>, Vec<_>) =
        topics.iter().flat_map(|t| t.partitions()).partition(|p| p.missing().is_none());
    if !elsewhere.is_empty() {
        let what = format!("{} partitions of this log are in other directories", elsewhere.len());
        let advice = "name all directories of the node to have them verified too";
        verdict.add(Finding::notice(&dirs[0], what, advice));
    }
    let segments = |p: &Partition| p.segments_and_checkpoint().0;
    let sizes = here.iter().flat_map(|p| segments(p)).map(|s| s.written());
    let mut progress = Progress { done_bytes: 0, total_bytes: sizes.sum() };
    verdict.figures.topics = topics.len() as u64;
    verdict.figures.partitions = here.len() as u64;
    let mut judge = Judge { disk: &*overlay, verdict, progress: &mut progress, watch };
    for partition in &here {
        judge.partition(partition)?;
    }
    let mut verdict = judge.verdict;
    for survey in surveys {
        // What the start tidied up on the overlay is still there below.
        judge_strays(survey, &here, &mut verdict)?;
    }
    verdict.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    Ok(verdict)
}

/// Superblock, catalogs, the ring's heads.
fn judge_files(survey: &Survey, verdict: &mut Verdict) {
    let dir = &survey.dir;
    let superblock = dir.join("superblock");
    match &survey.superblock {
        Err(why) => return verdict.add(Finding::damage(superblock, why)),
        Ok(None) if survey.was_never_made() => {
            let what = "it is missing: the first start did not get to its end";
            return verdict.add(Finding::notice(
                superblock,
                what,
                "nothing to do: the next start makes the directory anew",
            ));
        }
        Ok(None) => return verdict.add(Finding::damage(superblock, "it is missing")),
        Ok(Some(_)) => {}
    }
    let intact = survey.catalog().is_some();
    for (name, found) in &survey.catalogs {
        let file = dir.join(name);
        let other =
            "nothing to do: the other slot is intact, and the next checkpoint writes this one";
        match found {
            Found::Intact(_) => {}
            Found::Absent if intact => verdict.add(Finding::notice(file, "it is missing", other)),
            Found::Damaged if intact => {
                let what = "it is not whole, as after a crash while it was written";
                verdict.add(Finding::notice(file, what, other));
            }
            Found::Absent => {
                let what = "it is missing, and the other slot is not intact";
                verdict.add(rebuild::advise(Finding::damage(file, what)));
            }
            Found::Damaged => {
                let what = "it is damaged, and the other slot is not intact";
                verdict.add(rebuild::advise(Finding::damage(file, what)));
            }
        }
    }
    for number in &survey.unfinished {
        let what = "its head is not whole, as after a crash while it was made";
        verdict.add(Finding::notice(journal::path(dir, *number), what, NEXT_START));
    }
}

struct Judge<'a> {
    disk: &'a dyn Disk,
    verdict: Verdict,
    progress: &'a mut Progress,
    watch: &'a mut dyn FnMut(Progress),
}

impl Judge<'_> {
    fn partition(&mut self, partition: &Partition) -> Result<(), InspectError> {
        if let Some(why) = partition.damage() {
            let file = partition.folder().to_owned();
            self.verdict.add(Finding::damage(file, why));
        }
        let (segments, _) = partition.segments_and_checkpoint();
        let positions = partition.positions();
        let mut next = positions.log_start.get();
        let told = self.verdict.findings.len();
        for (i, segment) in segments.iter().enumerate() {
            let base = segment.base().get();
            let end = segments.get(i + 1).map_or(positions.log_end, |next| next.base()).get();
            let file = path(partition.folder(), segment.base(), "log");
            let holes = segment.is_sparse();
            if base > next && !holes {
                let what = "offsets before this segment are missing";
                self.lose(partition, Finding::damage(&file, what), next, Some(base));
            }
            let bounds = Bounds { base, end, holes };
            next = self.segment(partition, segment, &file, bounds)?.max(end);
            if i + 1 < segments.len() {
                self.offset_index(partition, segment, bounds)?;
                for finding in hints::judge(self.disk, partition, segment)? {
                    self.verdict.add(finding);
                }
            }
        }
        self.remembered(partition, told);
        Ok(())
    }

    /// What readers could not read, and can be read now. `told`: findings before those of this partition.
    fn remembered(&mut self, partition: &Partition, told: usize) {
        for (first, end) in partition.known_damage() {
            let findings = self.verdict.findings.iter().skip(told);
            let mut lost = findings.filter_map(|finding| finding.lost.as_ref());
            if lost.any(|lost| lost.first < end && lost.end.is_none_or(|to| first < to)) {
                continue;
            }
            let last = end - 1;
            let what =
                format!("a reader found offsets {first} to {last} damaged; they are whole now");
            let advice = "`headwater log repair` forgets it; if it comes again, the disk or the memory is failing";
            self.verdict.add(Finding::notice(partition.folder(), what, advice));
        }
    }

    /// Returns the offset behind the segment's last batch.
    fn segment(
        &mut self,
        partition: &Partition,
        segment: &Segment,
        file: &Path,
        bounds: Bounds,
    ) -> Result<i64, InspectError> {
        self.verdict.figures.segments += 1;
        let before = self.progress.done_bytes;
        let open = match self.disk.open(file, OpenMode::Read) {
            Ok(open) => open,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let what = "the file is missing";
                self.lose(partition, Finding::damage(file, what), bounds.base, Some(bounds.end));
                self.progress.done_bytes += segment.written();
                return Ok(bounds.end);
            }
            Err(e) => return Err(InspectError::io(file)(e)),
        };
        let size = open.size_bytes().map_err(InspectError::io(file))?;
        let written = segment.written();
        if size < written {
            let what = format!("it has {size} bytes, the catalog says {written}");
            self.verdict.add(Finding::damage(file, what).at(size));
        }
        let mut walk = Walk::new(&*open, bounds, written.min(size));
        let (mut max_timestamp, mut damage): (i64, Option<(u64, String, i64)>) = (i64::MIN, None);
        loop {
            let from = walk.offset();
            let step = match walk.next() {
                Ok(Some(step)) => step,
                Ok(None) => break,
                // A sector that cannot be read: what stands behind it may be, but not by this walk.
                Err(e) => {
                    damage =
                        damage.or(Some((self.progress.done_bytes - before, e.to_string(), from)));
                    break;
                }
            };
            match step {
                Step::Damage { byte, end, why } => {
                    let what = match end - byte {
                        0 => "offsets before this batch are missing".to_owned(),
                        bytes => format!("{why}; {bytes} bytes are no batches of this log"),
                    };
                    damage = damage.or(Some((byte, what, from)));
                }
                Step::Batch(whole) => {
                    let header = whole.header;
                    if let Some((byte, why, first)) = damage.take() {
                        let finding = Finding::damage(file, why).at(byte);
                        self.lose(partition, finding, first, Some(header.base_offset));
                    }
                    // No CRC covers it; the catalog knows it too.
                    let found = header.partition_leader_epoch;
                    let known = Offset::new(header.base_offset).and_then(|o| partition.epoch_of(o));
                    if let Some(epoch) = known.filter(|epoch| epoch.get() != found) {
                        let what = format!("leader epoch {found} where the catalog has {epoch}");
                        self.verdict.add(Finding::damage(file, what).at(whole.byte));
                    }
                    max_timestamp = max_timestamp.max(header.max_timestamp);
                    self.verdict.figures.batches += 1;
                    self.verdict.figures.records += u64::from(header.record_count.unsigned_abs());
                    self.advance(before + whole.end());
                }
            }
        }
        let reached = walk.offset();
        if let Some((byte, why, first)) = damage {
            self.lose(partition, Finding::damage(file, why).at(byte), first, Some(bounds.end));
        } else if size < written {
            let finding = Finding::damage(file, "its end is missing").at(size);
            self.lose(partition, finding, reached, Some(bounds.end));
        } else if segment.times().max_timestamp < max_timestamp {
            let what = format!(
                "a record has timestamp {max_timestamp}, the catalog says that none is above {}",
                segment.times().max_timestamp
            );
            self.verdict.add(Finding::damage(file, what));
        }
        self.verdict.figures.bytes += written;
        self.advance(before + written);
        Ok(reached)
    }

    fn advance(&mut self, to: u64) {
        self.progress.done_bytes = to;
        (self.watch)(*self.progress);
    }

    fn lose(&mut self, partition: &Partition, mut finding: Finding, first: i64, end: Option<i64>) {
        if end.is_some_and(|end| partition.is_lost(first, end)) {
            finding.severity = Severity::Notice;
            finding.advice =
                "nothing to do: a repair found it, and what is damaged is in quarantine";
        }
        finding.lost = Some(Lost {
            topic: partition.topic().to_string(),
            partition: partition.id().get(),
            first,
            end,
        });
        self.verdict.add(finding);
    }

    /// Each entry must name a byte where a batch begins, and that batch's last offset. One that a crash left half written does
    /// not rise: readers see that and make it again.
    fn offset_index(
        &mut self,
        partition: &Partition,
        segment: &Segment,
        bounds: Bounds,
    ) -> Result<(), InspectError> {
        let name = path(partition.folder(), segment.base(), "index");
        let io = InspectError::io(&name);
        let index = match self.disk.open(&name, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(&io)?,
        };
        let size = index.size_bytes().map_err(&io)?;
        let log_name = path(partition.folder(), segment.base(), "log");
        let Ok(log) = self.disk.open(&log_name, OpenMode::Read) else { return Ok(()) };
        let mut wrong = size % INDEX_ENTRY_BYTES != 0;
        let (mut at, mut last) = (0, None);
        let mut piece = vec![0; INDEX_PIECE_BYTES];
        while at < size && !wrong {
            let n = read_full_at(&*index, &mut piece, at).map_err(&io)?;
            for (i, entry) in piece[..n].as_chunks::<8>().0.iter().enumerate() {
                let byte = at + i as u64 * INDEX_ENTRY_BYTES;
                let [a, b, c, d, e, f, g, h] = *entry;
                let entry = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                wrong |= last.is_some_and(|(offset, byte)| entry.0 <= offset || entry.1 <= byte);
                last = Some(entry);
                if wrong {
                    break;
                }
                let found =
                    header_at(&*log, u64::from(entry.1)).map_err(InspectError::io(&log_name))?;
                let named = bounds.base + i64::from(entry.0);
                // A damaged batch is told of already, and an index made before the damage may well point at it.
                if found.is_none_or(|last_offset| last_offset == named) {
                    continue;
                }
                // Readers check the last entry before they believe an index: a torn one ends there.
                if byte + INDEX_ENTRY_BYTES == size {
                    wrong = true;
                    break;
                }
                let what = format!("its entry for offset {named} points at another batch");
                self.verdict.add(Finding::damage(&name, what).at(byte));
                return Ok(());
            }
            at += n as u64;
        }
        if wrong {
            let what = "it is not whole, as after a crash";
            self.verdict.add(Finding::notice(
                &name,
                what,
                "nothing to do: its next reader makes it again",
            ));
        }
        Ok(())
    }
}

/// The last offset of the batch whose header stands at this byte, if one does.
fn header_at(log: &dyn crate::disk::DiskFile, byte: u64) -> io::Result<Option<i64>> {
    let mut head = [0; crate::batch::HEADER_BYTES];
    let n = read_full_at(log, &mut head, byte)?;
    Ok(crate::batch::BatchHeader::parse_alone(&head[..n]).ok().map(|h| h.last_offset()))
}

/// Files and folders that belong to no partition.
fn judge_strays(
    survey: &Survey,
    partitions: &[&Arc<Partition>],
    verdict: &mut Verdict,
) -> Result<(), InspectError> {
    let known: BTreeMap<&Path, &Arc<Partition>> =
        partitions.iter().map(|p| (p.folder(), *p)).collect();
    let topics = survey.dir.join("topics");
    let folders = match survey.disk.list(&topics) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        folders => folders.map_err(InspectError::io(&topics))?,
    };
    for entry in folders {
        let folder = topics.join(&entry.name);
        if !entry.is_dir {
            let what = "it belongs to nobody here";
            verdict.add(Finding::notice(folder, what, "remove it if you know it"));
            continue;
        }
        let Some(partition) = known.get(&*folder) else {
            let what = "it belongs to no topic: it was deleted, or never got to be one";
            verdict.add(Finding::notice(folder, what, NEXT_START));
            continue;
        };
        let segments = partition.segments_and_checkpoint().0;
        let bases: BTreeSet<i64> = segments.iter().map(|s| s.base().get()).collect();
        for entry in survey.disk.list(&folder).map_err(InspectError::io(&folder))? {
            let base = entry.name.split('.').next().and_then(|base| base.parse::<i64>().ok());
            if base.is_some_and(|base| !bases.contains(&base)) {
                let what = "no segment of this partition has that number";
                verdict.add(Finding::notice(folder.join(entry.name), what, NEXT_START));
            }
        }
    }
    Ok(())
}
