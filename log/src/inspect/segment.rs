//! One segment, batch by batch: every byte is read and every CRC computed, in pieces.
//!
//! Invariant: a batch's length is believed only as far as the segment has bytes, and memory does not grow with it.
//! Neighbours: [`super::verify`] and [`super::repair`] run it over all segments; `segment::scan` finds the way behind damage.

use crate::batch::{BatchError, BatchHeader, HEADER_BYTES};
use crate::disk::{DiskFile, read_full_at};
use crate::segment::scan::Scan;
use std::io;

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The first byte that a batch's CRC covers.
const CRC_FROM: u64 = 21;

/// A batch that is whole, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) byte: u64,
    pub(crate) header: BatchHeader,
}

impl Whole {
    pub(crate) fn end(&self) -> u64 {
        self.byte + self.header.size_bytes() as u64
    }
}

/// What stands next in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Batch(Whole),
    /// Bytes that are no batch, up to the next one that is, or to the end. None at all where only offsets are missing.
    Damage {
        byte: u64,
        end: u64,
        why: BatchError,
    },
}

/// Which offsets a segment may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The first one.
    pub(crate) base: i64,
    /// The segment ends below this one.
    pub(crate) end: i64,
    /// Compaction leaves holes between batches. Elsewhere a hole is damage.
    pub(crate) holes: bool,
}

/// The walk over a segment's bytes `0..size_bytes`.
pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    size_bytes: u64,
    /// The next batch begins here, or, where there may be holes, not below.
    next: i64,
    bounds: Bounds,
    /// The batch at `at` may begin anywhere: damage before it was told.
    after_damage: bool,
    piece: Vec<u8>,
    piece_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, bounds: Bounds, size_bytes: u64) -> Self {
        Self {
            file,
            at: 0,
            size_bytes,
            next: bounds.base,
            bounds,
            after_damage: false,
            piece: Vec::with_capacity(PIECE_BYTES),
            piece_at: 0,
        }
    }

    /// The offset that the walk has come to.
    pub(crate) fn offset(&self) -> i64 {
        self.next
    }

    /// `None` at the end. An error is the disk's.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.size_bytes {
            return Ok(None);
        }
        let byte = self.at;
        let why = match self.whole(byte)? {
            Ok(header) => {
                let whole = Whole { byte, header };
                let follows = header.base_offset == self.next
                    || header.base_offset > self.next && (self.bounds.holes || self.after_damage);
                if follows && header.last_offset() < self.bounds.end {
                    self.at = whole.end();
                    self.next = header.last_offset() + 1;
                    self.after_damage = false;
                    return Ok(Some(Step::Batch(whole)));
                }
                let why = BatchError::Field("baseOffset");
                // The base offset is not in the CRC: it may be wrong, or right and the ones before it are missing. What stands
                // behind it tells.
                if header.base_offset > self.next && self.is_followed(&whole)? {
                    self.after_damage = true;
                    return Ok(Some(Step::Damage { byte, end: byte, why }));
                }
                why
            }
            Err(why) => why,
        };
        let mut scan = Scan::new(self.file, byte, self.size_bytes);
        scan.resync(self.next)?;
        self.at = scan.at();
        self.after_damage = true;
        Ok(Some(Step::Damage { byte, end: self.at, why }))
    }

    /// Whether the offsets behind a batch go on from its own.
    fn is_followed(&mut self, batch: &Whole) -> io::Result<bool> {
        let next = batch.header.last_offset() + 1;
        if batch.end() >= self.size_bytes {
            return Ok(next == self.bounds.end);
        }
        Ok(self.whole(batch.end())?.is_ok_and(|behind| behind.base_offset == next))
    }

    /// The batch at `byte`, if it is whole.
    fn whole(&mut self, byte: u64) -> io::Result<Result<BatchHeader, BatchError>> {
        let header = match BatchHeader::parse_alone(self.bytes(byte, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(why) => return Ok(Err(why)),
        };
        let end = byte + header.size_bytes() as u64;
        if end > self.size_bytes {
            return Ok(Err(BatchError::Short));
        }
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        let mut at = byte + CRC_FROM;
        while at < end {
            let piece = self.bytes(at, (end - at).min(PIECE_BYTES as u64) as usize)?;
            if piece.is_empty() {
                return Ok(Err(BatchError::Short));
            }
            digest.update(piece);
            at += piece.len() as u64;
        }
        let found = digest.finalize() as u32;
        Ok(if found == header.crc {
            Ok(header)
        } else {
            Err(BatchError::Crc { stored: header.crc, found })
        })
    }

    /// At most `n` bytes from `at`, which is never more than a piece: fewer where the piece or the file ends, but as many as
    /// the file has where `n` is at most a header's.
    fn bytes(&mut self, at: u64, n: usize) -> io::Result<&[u8]> {
        let inside = at >= self.piece_at && at < self.piece_at + self.piece.len() as u64;
        let left = if inside { self.piece.len() - (at - self.piece_at) as usize } else { 0 };
        if left < n && (left == 0 || n <= HEADER_BYTES) {
            self.piece.resize((self.size_bytes - at).min(PIECE_BYTES as u64) as usize, 0);
            self.piece_at = at;
            let read = read_full_at(self.file, &mut self.piece, at)?;
            self.piece.truncate(read);
        }
        let from = (at - self.piece_at) as usize;
        Ok(&self.piece[from..(from + n).min(self.piece.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Seal};
    use crate::disk::fake::FakeDisk;
    use crate::disk::{Disk, OpenMode};
    use crate::record::{Headers, RecordParts};
    use crate::{LeaderEpoch, Offset};
    use std::path::Path;

    fn batch(base: i64, bytes: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let value = vec![5; bytes];
        let record = RecordParts {
            timestamp_ms: 1,
            key: None,
            value: Some(&value),
            headers: Headers::EMPTY,
        };
        builder.push(&record, usize::MAX);
        let seal = Seal {
            base_offset: Offset::new(base).unwrap(),
            epoch: LeaderEpoch::default(),
            node_slot: 0,
            base_sequence: 0,
        };
        builder.seal(seal).unwrap().to_vec()
    }

    fn walk(bytes: &[u8]) -> Vec<Step> {
        let disk = FakeDisk::new(1);
        disk.plant("/f", bytes);
        let file = disk.open(Path::new("/f"), OpenMode::Read).unwrap();
        let bounds = Bounds { base: 0, end: 6, holes: false };
        let mut walk = Walk::new(&*file, bounds, bytes.len() as u64);
        let mut steps = Vec::new();
        while let Some(step) = walk.next().unwrap() {
            steps.push(step);
        }
        steps
    }

    #[test]
    fn batches_of_any_size_are_read_whole_and_a_flipped_bit_is_found_where_it_is() {
        let sizes = [10, PIECE_BYTES - 100, 3, 3 * PIECE_BYTES, 0, 200_000];
        let batches: Vec<Vec<u8>> = (0..).zip(sizes).map(|(i, n)| batch(i, n)).collect();
        let bytes = batches.concat();
        let steps = walk(&bytes);
        assert_eq!(steps.len(), sizes.len());
        for (i, step) in steps.iter().enumerate() {
            assert!(matches!(step, Step::Batch(w) if w.header.base_offset == i as i64), "{step:?}");
        }
        let from = batches[0].len() + batches[1].len();
        let end = from + batches[2].len();
        for at in [from + 3, from + 7, from + 9, from + 16, from + 18, from + 30, end - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            let steps = walk(&bad);
            assert_eq!(steps.len(), sizes.len(), "byte {at}: {steps:?}");
            assert!(
                matches!(steps[2], Step::Damage { byte, end: e, .. }
                    if byte == from as u64 && e == end as u64),
                "byte {at}: {:?}",
                steps[2]
            );
        }
        let hole = [&bytes[..from], &bytes[end..]].concat();
        let steps = walk(&hole);
        assert!(
            matches!(steps[2], Step::Damage { byte, end, .. } if byte == end && byte == from as u64),
            "{steps:?}"
        );
        assert_eq!(steps.len(), sizes.len(), "nothing else is lost: {steps:?}");
        let steps = walk(&bytes[..bytes.len() - 1]);
        assert!(matches!(steps[5], Step::Damage { why: BatchError::Short, .. }), "{steps:?}");
    }
}
