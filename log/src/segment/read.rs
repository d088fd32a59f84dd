//! Reads whole batches out of a segment file, verified, and says exactly what is damaged.
//!
//! Every batch that a read takes from a file is checked against its CRC, hot or cold: the check costs a fraction of the copy out
//! of the page cache (`log/benches/segments.rs` prints both), so there is no mark of what was checked before, which a bit that
//! turns later would make a lie.
//!
//! An index says where to begin; the entry that is followed is compared with the batch it names. One that lies is made anew.
//!
//! Invariant: nothing of a batch whose CRC does not match is returned, and nothing of a log is written, whatever is found.
//! Neighbours: `scan` walks headers, `indexes` says where to begin, `partition::read` and `lookup` ask.

use super::Segment;
use super::index::{OffsetEntry, Offsets, Times};
use super::indexes::Indexes;
use super::scan::{At, Scan, verify_in_pieces};
use crate::Offset;
use crate::batch::{self, BatchError};
use crate::disk::{DiskFile, read_full_at};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// A read holds at most this much beyond its first batch, whatever was asked. A batch that says to be larger is believed once
/// its CRC was found right.
const READ_BYTES_MAX: usize = 16 << 20;

/// Damage found where offsets should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) byte: u64,
    pub(crate) reason: BatchError,
    /// The next offset in this segment that can be read.
    pub(crate) next_good: Option<Offset>,
}

/// What a read of one segment gave.
#[derive(Debug)]
pub(crate) enum Read {
    /// Batches, and the offset behind them. None when the limit is at once reached, or where compaction left nothing.
    Batches(Vec<Bytes>, Offset),
    Damaged(Damage),
}

/// How far a file is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It holds what was written to it, or shows damage that a start can judge.
    Well,
    /// Its directory has failed: the kernel may have dropped what was written and not synced, anywhere in it. What is damaged
    /// may be whole in the journal, so it is not passed over.
    Failed,
}

/// A segment, open for reading.
pub(crate) struct Reading<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) indexes: &'a Indexes,
    pub(crate) folder: &'a Path,
    /// The base of the segment behind it, if there is one. It may not be wholly written all the same.
    pub(crate) next: Option<Offset>,
}

enum Located {
    Found(At),
    End,
    Damaged(Damage),
}

/// An entry to follow.
enum Entry {
    /// None is needed: from the front.
    Front,
    Offset(OffsetEntry),
    /// Timestamp and last offset of the time index, and where to look for that offset.
    Time(i64, u32, Option<OffsetEntry>),
}

impl From<Option<OffsetEntry>> for Entry {
    fn from(entry: Option<OffsetEntry>) -> Self {
        entry.map_or(Self::Front, Self::Offset)
    }
}

impl Reading<'_> {
    /// Whole batches from the one that has `from`, below `limit` (exclusive end), at most `bytes_max` but at least one.
    pub(crate) fn read(&self, from: Offset, limit: Offset, bytes_max: usize) -> io::Result<Read> {
        let first = match self.locate(from, limit)? {
            Located::Found(at) => at,
            // What compaction took at the end of a segment; elsewhere the caller knows what is missing.
            Located::End if self.segment.is_sparse() => {
                return Ok(Read::Batches(Vec::new(), self.next.unwrap_or(from).min(limit)));
            }
            Located::End => return Ok(Read::Batches(Vec::new(), from)),
            Located::Damaged(damage) => return Ok(Read::Damaged(damage)),
        };
        if first.header.base_offset >= limit.get() {
            return Ok(Read::Batches(Vec::new(), limit));
        }
        if first.header.size_bytes() > READ_BYTES_MAX
            && let Err(reason) = verify_in_pieces(self.file, &first)?
        {
            return Ok(Read::Damaged(self.damage(first.byte, reason, from, limit)?));
        }
        let available = self.segment.written().saturating_sub(first.byte);
        let want = bytes_max.min(READ_BYTES_MAX).max(first.header.size_bytes());
        let mut bytes = vec![0; want.min(usize::try_from(available).unwrap_or(want))];
        let n = read_full_at(self.file, &mut bytes, first.byte)?;
        bytes.truncate(n);
        let bytes = Bytes::from(bytes);
        let (mut at, mut next, mut batches) = (0, from, Vec::new());
        while at < bytes.len() {
            let header = match batch::verify(&bytes[at..]) {
                Ok(header) => header,
                // Only the first batch is there whole for certain; what is damaged is told when it is asked for.
                Err(_) if !batches.is_empty() => break,
                Err(reason) => {
                    return Ok(Read::Damaged(self.damage(first.byte, reason, from, limit)?));
                }
            };
            // The base offset lies outside the CRC: only its place among the others vouches for it.
            let base = header.base_offset;
            let follows = base == next.get() || base > next.get() && self.segment.is_sparse();
            if !follows && !batches.is_empty() {
                break;
            }
            let end = header.last_offset() + 1;
            if end > limit.get() {
                break;
            }
            batches.push(bytes.slice(at..at + header.size_bytes()));
            at += header.size_bytes();
            next = Offset::new(end).unwrap_or(next);
        }
        Ok(Read::Batches(batches, next))
    }

    /// The first batch that ends beyond `target`, hopping over what is damaged before it.
    fn locate(&self, target: Offset, limit: Offset) -> io::Result<Located> {
        let end = self.next.unwrap_or(limit);
        let start = self.begin_by_offset(target)?;
        let sparse = self.segment.is_sparse();
        let mut scan = Scan::new(self.file, start, self.segment.written());
        let mut expected: Option<i64> = None;
        let mut bad: Option<(u64, BatchError)> = None;
        loop {
            let follows = |at: &At| {
                // Behind damage a message may be found that is itself a batch: what goes on here has offsets of here.
                let here = bad.is_none() || at.header.base_offset <= end.get();
                here && expected.is_none_or(|e| {
                    e == at.header.base_offset || sparse && e < at.header.base_offset
                })
            };
            match scan.next()? {
                None => {
                    return Ok(match bad {
                        Some((byte, reason)) => {
                            Located::Damaged(Damage { byte, reason, next_good: None })
                        }
                        None => Located::End,
                    });
                }
                Some(Ok(at)) if follows(&at) => {
                    expected = Some(at.header.last_offset() + 1);
                    if at.header.last_offset() < target.get() {
                        continue;
                    }
                    if at.header.base_offset > target.get() && (!sparse || bad.is_some()) {
                        // Only compaction leaves holes: what should be here is gone.
                        let (byte, reason) =
                            bad.unwrap_or((at.byte, BatchError::Field("baseOffset")));
                        let next_good = Offset::new(at.header.base_offset);
                        return Ok(Located::Damaged(Damage { byte, reason, next_good }));
                    }
                    return Ok(Located::Found(at));
                }
                // A header that does not parse, or whose offsets do not follow.
                Some(step) => {
                    let (byte, reason) = match step {
                        Ok(at) => (at.byte, BatchError::Field("baseOffset")),
                        Err(reason) => (scan.at(), reason),
                    };
                    bad = bad.or(Some((byte, reason)));
                    scan.seek(byte);
                    scan.resync(expected.take().unwrap_or(0))?;
                }
            }
        }
    }

    /// What is known of a batch with `from` whose CRC is wrong. Its own header may lie about where it ends: only an intact batch
    /// behind it says where to go on. A message may itself be a batch, of any offset: one that counts lies between `from` and
    /// what follows this segment, or the reader's limit.
    fn damage(
        &self,
        byte: u64,
        reason: BatchError,
        from: Offset,
        limit: Offset,
    ) -> io::Result<Damage> {
        let end = self.next.unwrap_or(limit);
        let mut scan = Scan::new(self.file, byte, self.segment.written());
        let mut next_good = None;
        while next_good.is_none() && scan.resync(from.plus(1).get())? {
            let Some(Ok(at)) = scan.next()? else { break };
            next_good = Offset::new(at.header.base_offset).filter(|base| *base <= end);
            scan.seek(at.byte);
        }
        Ok(Damage { byte, reason, next_good })
    }

    /// The first batch with offsets at or above `from` whose largest timestamp is at least `timestamp_ms`. What is damaged is
    /// passed over: a lookup by time asks for what there is.
    pub(crate) fn batch_by_time(
        &self,
        timestamp_ms: i64,
        from: Offset,
        trust: Trust,
    ) -> io::Result<Option<At>> {
        let by_offset = self.begin_by_offset(from)?;
        let start = match trust {
            // An index made meanwhile may not know of what is missing.
            Trust::Failed => by_offset,
            Trust::Well => by_offset.max(self.begin(i64::MAX, |offsets, times| {
                times.floor(timestamp_ms).map_or(Entry::Front, |(timestamp, last)| {
                    Entry::Time(timestamp, last, offsets.floor(i64::from(last)))
                })
            })?),
        };
        self.walk(start, from, trust, |at| (at.header.max_timestamp >= timestamp_ms).then_some(at))
    }

    /// The first of the batches with offsets in `from..limit` that have the largest timestamp, by walking all of them.
    pub(crate) fn newest_batch(
        &self,
        from: Offset,
        limit: Offset,
        trust: Trust,
    ) -> io::Result<Option<At>> {
        let mut newest: Option<At> = None;
        self.walk(self.begin_by_offset(from)?, from, trust, |at| {
            if at.header.base_offset >= limit.get() {
                return Some(());
            }
            if newest.is_none_or(|n| at.header.max_timestamp > n.header.max_timestamp) {
                newest = Some(at);
            }
            None
        })?;
        Ok(newest)
    }

    /// Shows batches with records at or above `from`, in order, until one is what is looked for.
    fn walk<T>(
        &self,
        start: u64,
        from: Offset,
        trust: Trust,
        mut look: impl FnMut(At) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut scan = Scan::new(self.file, start, self.segment.written());
        while let Some(step) = scan.next()? {
            match step {
                // A batch that compaction emptied has nothing to show.
                Ok(at) if at.header.last_offset() < from.get() || at.header.record_count == 0 => {}
                Ok(at) => {
                    if let Some(found) = look(at) {
                        return Ok(Some(found));
                    }
                }
                Err(reason) if trust == Trust::Failed => {
                    let byte = scan.at();
                    let what = format!("{reason} at byte {byte}, in a directory that has failed");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Err(_) => {
                    scan.resync(from.get())?;
                }
            }
        }
        Ok(None)
    }

    /// The byte where what is at or above `offset` begins, and the base offset of the batch that has it or comes next, if that
    /// was looked at: behind a batch that ends there it is not, and may be anything.
    pub(crate) fn find(&self, offset: Offset) -> io::Result<(u64, Option<Offset>)> {
        let mut scan = Scan::new(self.file, self.byte_of(offset)?, self.segment.written());
        let mut end = scan.at();
        while let Some(step) = scan.next()? {
            match step {
                Ok(at) if at.header.last_offset() >= offset.get() => {
                    return Ok((at.byte, Offset::new(at.header.base_offset)));
                }
                Ok(at) => {
                    end = at.end();
                    if at.header.last_offset() + 1 == offset.get() {
                        break;
                    }
                }
                Err(_) => {
                    if !scan.resync(0)? {
                        break;
                    }
                }
            }
        }
        Ok((end, None))
    }

    /// The largest timestamp below byte `end`, and the base offset of the batch that has it.
    pub(crate) fn max_timestamp(&self, end: u64) -> io::Result<(i64, i64)> {
        let mut scan = Scan::new(self.file, 0, end);
        let mut max = (i64::MIN, self.segment.base().get());
        while let Some(step) = scan.next()? {
            match step {
                Ok(at) if at.header.max_timestamp > max.0 => {
                    max = (at.header.max_timestamp, at.header.base_offset);
                }
                Ok(_) => {}
                Err(_) => {
                    scan.resync(0)?;
                }
            }
        }
        Ok(max)
    }

    /// Shows all batches, in order, until `look` has enough. What is damaged shows as a hole between one's end and the next's
    /// beginning.
    pub(crate) fn batches(&self, mut look: impl FnMut(At) -> io::Result<bool>) -> io::Result<()> {
        let sparse = self.segment.is_sparse();
        let mut scan = Scan::new(self.file, 0, self.segment.written());
        let base = self.segment.base().get();
        let mut expected = Some(base);
        let mut next = base;
        while let Some(step) = scan.next()? {
            let fits = |at: &At| {
                let found = at.header.base_offset;
                found >= next && (sparse || expected.is_none_or(|expected| found == expected))
            };
            match step {
                Ok(at) if fits(&at) => {
                    next = at.header.last_offset() + 1;
                    expected = Some(next);
                    if !look(at)? {
                        break;
                    }
                }
                step => {
                    if let Ok(at) = step {
                        scan.seek(at.byte);
                    }
                    expected = None;
                    scan.resync(next)?;
                }
            }
        }
        Ok(())
    }

    /// The byte where the batch with `offset` begins, to within one index interval.
    pub(crate) fn byte_of(&self, offset: Offset) -> io::Result<u64> {
        self.begin_by_offset(offset)
    }

    fn begin_by_offset(&self, offset: Offset) -> io::Result<u64> {
        let relative = offset.get() - self.segment.base().get();
        self.begin(relative, |offsets, _| offsets.floor(relative).into())
    }

    /// The byte of the batch that an entry names, once that batch has been found to be what the entry says.
    /// The index need not reach beyond `target`, an offset less the base.
    fn begin(
        &self,
        target: i64,
        find: impl Fn(Offsets<'_>, Times<'_>) -> Entry,
    ) -> io::Result<u64> {
        let Self { segment, file, indexes, folder, .. } = *self;
        if !segment.is_sealed() {
            let entry = indexes.of_growing(segment, file, target, &find)?;
            return Ok(self.follow(&entry)?.unwrap_or(0));
        }
        let sealed = indexes.of_sealed(segment, file, folder)?;
        let entry = find(sealed.offsets(), sealed.times());
        if let Some(byte) = self.follow(&entry)? {
            return Ok(byte);
        }
        let anew = indexes.anew(segment, file, folder, &sealed)?;
        let entry = find(anew.offsets(), anew.times());
        // Still not: the log is damaged there, and looking begins at its front.
        Ok(self.follow(&entry)?.unwrap_or(0))
    }

    /// `None` for an entry that lies.
    fn follow(&self, entry: &Entry) -> io::Result<Option<u64>> {
        let base = self.segment.base().get();
        let scan = |at: u32| Scan::new(self.file, u64::from(at), self.segment.written());
        match entry {
            Entry::Front => Ok(Some(0)),
            Entry::Offset(entry) => {
                let found = scan(entry.at).next_alone()?;
                let fits =
                    found.is_some_and(|at| at.header.last_offset() - base == i64::from(entry.last));
                Ok(fits.then_some(u64::from(entry.at)))
            }
            Entry::Time(timestamp, last, near) => {
                let mut scan = scan(near.map_or(0, |entry| entry.at));
                while let Some(Ok(at)) = scan.next()? {
                    let found = at.header.last_offset() - base;
                    if found >= i64::from(*last) {
                        let fits =
                            found == i64::from(*last) && at.header.max_timestamp == *timestamp;
                        return Ok(fits.then_some(at.byte));
                    }
                }
                Ok(None)
            }
        }
    }
}
