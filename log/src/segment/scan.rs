//! Walks the batch headers of a segment file, reading in large pieces.
//!
//! Invariant: never reads at or above the given end, and never steps past a header that does not parse.
//! Neighbours: `read`, `indexes` and `labels` walk with it; so do a recovery and `inspect`.

use crate::batch::{BatchError, BatchHeader, CRC_FROM, HEADER_BYTES};
use crate::disk::{DiskFile, read_full_at};
use std::io;

/// A walk reads in pieces of this size, once it has gone some way.
const PIECE_BYTES: usize = 128 << 10;
/// Its first piece: who looks a batch up finds it in the first few kilobytes behind an index entry, and on a cold disk the
/// rest of a large piece would be most of the cost.
const FIRST_PIECE_BYTES: usize = 4 << 10;

/// A batch header and the byte where it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) byte: u64,
    pub(crate) header: BatchHeader,
}

impl At {
    /// The byte behind the batch.
    pub(crate) fn end(&self) -> u64 {
        self.byte + self.header.size_bytes() as u64
    }
}

/// [`crate::batch::verify`] without the batch in memory: for who has only its header's word for how long it is.
pub(crate) fn verify_in_pieces(
    file: &dyn DiskFile,
    batch: &At,
) -> io::Result<Result<(), BatchError>> {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut piece = vec![0; batch.header.size_bytes().min(PIECE_BYTES)];
    let mut at = batch.byte + CRC_FROM as u64;
    while at < batch.end() {
        let want = (batch.end() - at).min(piece.len() as u64) as usize;
        let n = read_full_at(file, &mut piece[..want], at)?;
        if n < want {
            return Ok(Err(BatchError::Short));
        }
        digest.update(&piece[..n]);
        at += n as u64;
    }
    let (stored, found) = (batch.header.crc, digest.finalize() as u32);
    Ok(if found == stored { Ok(()) } else { Err(BatchError::Crc { stored, found }) })
}

/// The walk.
pub(crate) struct Scan<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    piece_at: u64,
    /// Size of the next piece.
    next_bytes: usize,
}

impl<'a> Scan<'a> {
    /// From byte `at`, which must be where a batch begins, to byte `end`.
    pub(crate) fn new(file: &'a dyn DiskFile, at: u64, end: u64) -> Self {
        Self { file, at, end, piece: Vec::new(), piece_at: 0, next_bytes: FIRST_PIECE_BYTES }
    }

    /// Where the next header is looked for.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Goes on elsewhere.
    pub(crate) fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// Looks for the next place where an intact batch with offsets from `base_min` on begins, and goes on there. At the end,
    /// and `false`, when there is none.
    pub(crate) fn resync(&mut self, base_min: i64) -> io::Result<bool> {
        let mut from = self.at + 1;
        let mut window = vec![0; PIECE_BYTES];
        while from + HEADER_BYTES as u64 <= self.end {
            let want = (self.end - from).min(PIECE_BYTES as u64) as usize;
            let n = read_full_at(self.file, &mut window[..want], from)?;
            for (i, head) in window[..n].windows(HEADER_BYTES).enumerate() {
                // The magic byte first: it rules out nearly all places.
                if head[16] == 2 && self.is_batch(from + i as u64, head, base_min)? {
                    self.at = from + i as u64;
                    return Ok(true);
                }
            }
            if n < HEADER_BYTES {
                break;
            }
            from += (n - HEADER_BYTES + 1) as u64;
        }
        self.at = self.end;
        Ok(false)
    }

    fn is_batch(&self, at: u64, head: &[u8], base_min: i64) -> io::Result<bool> {
        let Ok(header) = BatchHeader::parse_alone(head) else { return Ok(false) };
        let at = At { byte: at, header };
        if header.base_offset < base_min || at.end() > self.end {
            return Ok(false);
        }
        Ok(verify_in_pieces(self.file, &at)?.is_ok())
    }

    /// The next header; `Ok(None)` at the end. After a [`BatchError`] the walk stands still.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<At, BatchError>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.end - self.at < HEADER_BYTES as u64 {
            return Ok(Some(Err(BatchError::Short)));
        }
        let bytes = self.bytes(HEADER_BYTES)?;
        let header = match BatchHeader::parse_alone(bytes) {
            Ok(header) => header,
            Err(e) => return Ok(Some(Err(e))),
        };
        let at = At { byte: self.at, header };
        if at.end() > self.end {
            return Ok(Some(Err(BatchError::Short)));
        }
        self.at = at.end();
        Ok(Some(Ok(at)))
    }

    /// As [`Scan::next`] for who wants one header only: reads no more than that.
    pub(crate) fn next_alone(&mut self) -> io::Result<Option<At>> {
        let mut head = [0; HEADER_BYTES];
        let n = read_full_at(self.file, &mut head, self.at)?;
        let header = BatchHeader::parse_alone(&head[..n]).ok();
        let at = header.map(|header| At { byte: self.at, header });
        Ok(at.filter(|at| at.end() <= self.end))
    }

    /// `n` bytes from `self.at`, fewer only when the file is shorter than it should be.
    fn bytes(&mut self, n: usize) -> io::Result<&[u8]> {
        let inside = self.at >= self.piece_at
            && self.at + n as u64 <= self.piece_at + self.piece.len() as u64;
        if !inside {
            // Large batches are hopped over, small ones read together.
            let want = (self.end - self.at).min(self.next_bytes as u64) as usize;
            self.next_bytes = (self.next_bytes * 2).min(PIECE_BYTES);
            self.piece.resize(want, 0);
            self.piece_at = self.at;
            let read = read_full_at(self.file, &mut self.piece, self.at)?;
            self.piece.truncate(read);
        }
        let from = (self.at - self.piece_at) as usize;
        Ok(&self.piece[from..(from + n).min(self.piece.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Seal};
    use crate::disk::{Disk, OpenMode, SystemDisk};
    use crate::record::{Headers, RecordParts};
    use crate::{LeaderEpoch, Offset};

    fn peak_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let record =
            RecordParts { timestamp_ms: 1, key: None, value: Some(b"v"), headers: Headers::EMPTY };
        let mut builder = BatchBuilder::new();
        builder.push(&record, 1 << 20).unwrap();
        let (base_offset, epoch) = (Offset::ZERO, LeaderEpoch::default());
        let seal = Seal { base_offset, epoch, node_slot: 0, base_sequence: 0 };
        let batch = builder.seal(seal).unwrap();
        let mut lie = batch[..HEADER_BYTES].to_vec();
        lie[8..12].copy_from_slice(&(500_i32 << 20).to_be_bytes());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [&[0; 70][..], &lie, &batch].concat()).unwrap();
        let size_bytes = 512 << 20;
        std::fs::File::options().write(true).open(&path).unwrap().set_len(size_bytes).unwrap();
        let file = SystemDisk.open(&path, OpenMode::Read).unwrap();
        let before = peak_bytes();
        let mut scan = Scan::new(&*file, 0, size_bytes);
        assert!(matches!(scan.next().unwrap(), Some(Err(_))));
        assert!(scan.resync(0).unwrap());
        assert_eq!(scan.at(), 70 + HEADER_BYTES as u64, "the one that is whole");
        assert!(peak_bytes() - before < 256 << 20);
    }
}
