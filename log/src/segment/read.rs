//! Reads whole batches out of a segment file, verified, and says exactly what is damaged.
//!
//! Invariant: nothing of a batch whose CRC does not match is returned, and nothing is written, whatever is found.

use super::Segment;
use super::scan::{At, Scan};
use crate::Offset;
use crate::batch::{self, BatchError};
use crate::disk::{Disk, DiskFile, read_full_at};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// A read holds at most this much beyond its first batch, whatever was asked.
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
    /// Batches, perhaps none when the limit is at once reached.
    Batches(Vec<Bytes>, Offset),
    Damaged(Damage),
}

/// A segment, open for reading.
pub(crate) struct Reading<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) disk: &'a dyn Disk,
    pub(crate) folder: &'a Path,
    pub(crate) sealed: bool,
}

enum Located {
    Found(At),
    End,
    Damaged(Damage),
}

impl Reading<'_> {
    /// Whole batches from the one that has `from`, below `limit` (exclusive end), at most `bytes_max` but at least one.
    pub(crate) fn read(&self, from: Offset, limit: Offset, bytes_max: usize) -> io::Result<Read> {
        let first = match self.locate(from)? {
            Located::Found(at) => at,
            Located::End => return Ok(Read::Batches(Vec::new(), from)),
            Located::Damaged(damage) => return Ok(Read::Damaged(damage)),
        };
        let available = self.segment.written() - first.byte;
        let want = bytes_max.min(READ_BYTES_MAX).max(first.header.size_bytes());
        let mut bytes = vec![0; want.min(usize::try_from(available).unwrap_or(want))];
        let n = read_full_at(self.file, &mut bytes, first.byte)?;
        bytes.truncate(n);
        let bytes = Bytes::from(bytes);
        let (mut at, mut next, mut batches) = (0, from, Vec::new());
        while at < bytes.len() {
            let header = match batch::verify(&bytes[at..]) {
                Ok(header) => header,
                // Only the first batch is there whole for certain.
                Err(BatchError::Short) if !batches.is_empty() => break,
                Err(_) if !batches.is_empty() => break,
                Err(reason) => {
                    return Ok(Read::Damaged(self.damage(first.byte, reason)?));
                }
            };
            if header.base_offset > next.get() && !batches.is_empty() {
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
    fn locate(&self, target: Offset) -> io::Result<Located> {
        let relative = target.get() - self.segment.base().get();
        let start = self.index(|index| index.floor(relative))?;
        let mut scan = Scan::new(self.file, start, self.segment.written());
        let mut expected: Option<i64> = None;
        let mut bad: Option<(u64, BatchError)> = None;
        loop {
            let step = scan.next()?;
            match step {
                None => {
                    return Ok(match bad {
                        Some((byte, reason)) => {
                            Located::Damaged(Damage { byte, reason, next_good: None })
                        }
                        None => Located::End,
                    });
                }
                Some(Ok(at)) if expected.is_none_or(|e| e == at.header.base_offset) => {
                    expected = Some(at.header.last_offset() + 1);
                    if at.header.last_offset() < target.get() {
                        continue;
                    }
                    if at.header.base_offset > target.get() {
                        // Offsets of a partition have no holes: what should be here is gone.
                        let (byte, reason) =
                            bad.unwrap_or((at.byte, BatchError::Field("baseOffset")));
                        let next_good = Offset::new(at.header.base_offset);
                        return Ok(Located::Damaged(Damage { byte, reason, next_good }));
                    }
                    return Ok(Located::Found(at));
                }
                step => {
                    // A header that does not parse, or whose offsets do not follow.
                    let (byte, reason) = match step {
                        Some(Ok(at)) => (at.byte, BatchError::Field("baseOffset")),
                        Some(Err(reason)) => (scan.at(), reason),
                        None => return Ok(Located::End),
                    };
                    bad = bad.or(Some((byte, reason)));
                    scan.seek(byte);
                    scan.resync(expected.take().unwrap_or(0))?;
                }
            }
        }
    }

    /// What is known of a batch whose CRC is wrong.
    fn damage(&self, byte: u64, reason: BatchError) -> io::Result<Damage> {
        let mut scan = Scan::new(self.file, byte, self.segment.written());
        // Its own header may lie about where it ends: only an intact batch behind it says where to go on.
        let after = if scan.resync(0)? { scan.next()? } else { None };
        let next_good =
            after.and_then(Result::ok).and_then(|at| Offset::new(at.header.base_offset));
        Ok(Damage { byte, reason, next_good })
    }

    /// The first batch from byte `start` on whose largest timestamp is at least `timestamp_ms`.
    pub(crate) fn batch_by_time(&self, timestamp_ms: i64) -> io::Result<Option<At>> {
        let mut scan = Scan::new(self.file, 0, self.segment.written());
        while let Some(step) = scan.next()? {
            match step {
                Ok(at) if at.header.max_timestamp >= timestamp_ms => return Ok(Some(at)),
                Ok(_) => {}
                Err(_) => {
                    scan.resync(0)?;
                }
            }
        }
        Ok(None)
    }

    /// The byte where the batch with `offset` begins, to within one index interval.
    pub(crate) fn byte_of(&self, offset: Offset) -> io::Result<u64> {
        let relative = offset.get() - self.segment.base().get();
        self.index(|index| index.floor(relative))
    }

    fn index<T>(&self, look: impl FnOnce(&super::Index) -> T) -> io::Result<T> {
        self.segment.with_index(self.disk, self.folder, self.file, self.sealed, look)
    }
}
