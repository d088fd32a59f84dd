//! One cycle of the journal: the unit of commit, atomic as a whole.
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic `HWCY` |
//! | 4 | version u16: 1, or 2 where a frame of kind 8 is in it; what a newer one keeps are bytes 0..24 and the CRC in byte 60, so that it can be refused |
//! | 6 | zero u16 |
//! | 8 | directory id, 16 bytes |
//! | 24 | generation u64: of the run that wrote it |
//! | 32 | number u64: one more than the cycle before |
//! | 40 | synced through u64: every cycle up to here had been synced when this one was written |
//! | 48 | CRC u32 of the header of the cycle before |
//! | 52 | length u32 of the frames |
//! | 56 | CRC-32C u32 of the frames |
//! | 60 | CRC-32C u32 of bytes 0..60 |
//! | 64 | frames, then zeros to a multiple of 4096 |
//!
//! A frame:
//!
//! | byte | field |
//! |---|---|
//! | 0 | kind u8 |
//! | 1 | zeros, 3 bytes |
//! | 4 | length u32 of what follows the frame's 16 bytes |
//! | 8 | handle u64 of the partition, 0 for kinds 1 and 4 |
//! | 16 | by kind, below |
//!
//! | kind | holds |
//! |---|---|
//! | 1 metadata | sequence u64, then one record of `metadata` |
//! | 2 log start | offset i64: nothing below is readable any more |
//! | 3 batches | whole record batches in offset order, as they stand in the segment |
//! | 4 ends | what the cycle before committed: (handle u64, first offset i64, end offset i64) each; names the loss exactly, should that cycle rot. First = end: the partition was cut to there |
//! | 5 truncate | offset i64: what was appended at or above it before this cycle is gone |
//! | 6 leadership | of a replicated partition: `partition::replica` has its table |
//! | 7 swap | a compaction swap: `compaction::swap` has its table |
//!
//! | 8 extent | batches that are in their segment already, and synced there (`crate::bulk`): base offset i64 of the segment, byte u64, length u32, CRC-32C u32 of these bytes, first offset i64, end offset i64 |
//!
//! Frames of the kinds 1, 2 and 4 to 8 stand before the batches.
//!
//! Invariant: what decodes was written whole by this directory; lengths are checked before anything is sliced.

use super::BLOCK_BYTES;
use crate::Offset;
use crate::compaction::Swap;
use crate::encoding::{Fields, Put, crc32c};
use crate::partition::replica::{LEADERSHIP_BYTES, Leadership};
use bytes::Bytes;
use std::io::IoSlice;

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"HWCY";
const VERSION: u16 = 2;
/// Of cycles without an extent: what every program can read that knows the other kinds.
const VERSION_WITHOUT_EXTENT: u16 = 1;
/// Batches of at least this size are written from where they lie instead of being copied together.
const COPY_BYTES_MAX: usize = 8 << 10;

const KIND_METADATA: u8 = 1;
const KIND_LOG_START: u8 = 2;
const KIND_BATCHES: u8 = 3;
const KIND_ENDS: u8 = 4;
const KIND_TRUNCATE: u8 = 5;
const KIND_LEADERSHIP: u8 = 6;
const KIND_SWAP: u8 = 7;
const KIND_EXTENT: u8 = 8;
const KIND_LAST: u8 = KIND_EXTENT;
const EXTENT_BYTES: usize = 40;

/// What a partition got from one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) handle: u64,
    pub(crate) first: i64,
    pub(crate) end: i64,
}

/// Batches of one partition that lie in its segment and are synced there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Base of the segment.
    pub(crate) segment: Offset,
    /// Where in it they begin.
    pub(crate) byte: u64,
    pub(crate) length: u32,
    pub(crate) crc: u32,
    pub(crate) first: Offset,
    /// Exclusive.
    pub(crate) end: Offset,
}

impl Extent {
    fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let extent = Self {
            segment: Offset::new(f.i64()?)?,
            byte: f.u64()?,
            length: f.u32()?,
            crc: f.u32()?,
            first: Offset::new(f.i64()?)?,
            end: Offset::new(f.i64()?)?,
        };
        let sound = extent.segment <= extent.first && extent.first < extent.end;
        (sound && f.rest().is_empty()).then_some(extent)
    }
}

/// Identity of a cycle in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) generation: u64,
    pub(crate) number: u64,
    pub(crate) synced_through: u64,
    pub(crate) previous_crc: u32,
    pub(crate) length: u32,
    pub(crate) frames_crc: u32,
    /// CRC of this header: what the next cycle names.
    pub(crate) crc: u32,
}

impl Header {
    /// `None` for anything but an intact header of this directory.
    pub(crate) fn decode(bytes: &[u8], directory_id: &[u8; 16]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let mut fields = Fields::new(header);
        if &fields.array::<4>()? != MAGIC {
            return None;
        }
        let version = fields.u16()?;
        if !(VERSION_WITHOUT_EXTENT..=VERSION).contains(&version) {
            return None;
        }
        fields.u16()?;
        if &fields.array::<16>()? != directory_id {
            return None;
        }
        let decoded = Self {
            generation: fields.number()?,
            number: fields.number()?,
            synced_through: fields.number()?,
            previous_crc: fields.u32()?,
            length: fields.u32()?,
            frames_crc: fields.u32()?,
            crc: fields.u32()?,
        };
        (crc32c(&header[..HEADER_BYTES - 4]) == decoded.crc).then_some(decoded)
    }

    /// The version of an intact header of this directory that a newer program wrote.
    pub(crate) fn newer_version(bytes: &[u8], directory_id: &[u8; 16]) -> Option<u16> {
        let header = bytes.get(..HEADER_BYTES)?;
        let mut fields = Fields::new(header);
        let ours = &fields.array::<4>()? == MAGIC;
        let version = fields.u16().filter(|version| ours && *version > VERSION)?;
        fields.u16()?;
        let (content, crc) = header.split_last_chunk::<4>()?;
        (&fields.array::<16>()? == directory_id && crc32c(content) == u32::from_le_bytes(*crc))
            .then_some(version)
    }

    /// Bytes of the whole cycle, padding included.
    pub(crate) fn size_bytes(&self) -> u64 {
        padded(HEADER_BYTES as u64 + u64::from(self.length))
    }
}

pub(crate) const fn padded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Bytes that a partition's batches take in a cycle beside themselves.
pub(crate) const fn batches_overhead() -> usize {
    FRAME_HEADER_BYTES + 24
}

enum Piece {
    Copied(std::ops::Range<usize>),
    Shared(Bytes),
}

/// Gathers one cycle; its memory is used again for the next.
#[derive(Default)]
pub(crate) struct CycleBuilder {
    copied: Vec<u8>,
    pieces: Vec<Piece>,
    length: usize,
    open_from: usize,
    has_extent: bool,
}

impl std::fmt::Debug for CycleBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CycleBuilder").field("length", &self.length).finish_non_exhaustive()
    }
}

impl CycleBuilder {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.copied.clear();
        // A burst must not be paid for with memory for ever.
        self.copied.shrink_to(1 << 20);
        self.length = 0;
        self.open_from = 0;
        self.has_extent = false;
    }

    /// Bytes of frames so far.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes it would take on disk now.
    pub(crate) fn size_bytes(&self) -> u64 {
        padded((HEADER_BYTES + self.length) as u64)
    }

    fn frame(&mut self, kind: u8, length: usize, handle: u64) {
        self.copied.put_u8(kind);
        self.copied.extend_from_slice(&[0; 3]);
        // Bounded by the cycle's size, which is checked before batches are added.
        self.copied.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        self.copied.put_u64(handle);
        self.length += FRAME_HEADER_BYTES + length;
    }

    pub(crate) fn metadata(&mut self, sequence: u64, record: &[u8]) {
        self.frame(KIND_METADATA, 8 + record.len(), 0);
        self.copied.put_u64(sequence);
        self.copied.extend_from_slice(record);
    }

    pub(crate) fn log_start(&mut self, handle: u64, offset: i64) {
        self.frame(KIND_LOG_START, 8, handle);
        self.copied.put_i64(offset);
    }

    pub(crate) fn truncate(&mut self, handle: u64, offset: i64) {
        self.frame(KIND_TRUNCATE, 8, handle);
        self.copied.put_i64(offset);
    }

    pub(crate) fn leadership(&mut self, handle: u64, leadership: &Leadership) {
        self.frame(KIND_LEADERSHIP, LEADERSHIP_BYTES, handle);
        leadership.encode(&mut self.copied);
    }

    pub(crate) fn swap(&mut self, handle: u64, swap: &Swap) {
        let mut body = Vec::new();
        swap.encode(&mut body);
        self.frame(KIND_SWAP, body.len(), handle);
        self.copied.extend_from_slice(&body);
    }

    pub(crate) fn extent(&mut self, handle: u64, extent: &Extent) {
        self.frame(KIND_EXTENT, EXTENT_BYTES, handle);
        self.copied.put_i64(extent.segment.get());
        self.copied.put_u64(extent.byte);
        self.copied.put_u32(extent.length);
        self.copied.put_u32(extent.crc);
        self.copied.put_i64(extent.first.get());
        self.copied.put_i64(extent.end.get());
        self.has_extent = true;
    }

    pub(crate) fn ends(&mut self, ends: &[End]) {
        if ends.is_empty() {
            return;
        }
        self.frame(KIND_ENDS, ends.len() * 24, 0);
        for end in ends {
            self.copied.put_u64(end.handle);
            self.copied.put_i64(end.first);
            self.copied.put_i64(end.end);
        }
    }

    pub(crate) fn batches<'a>(
        &mut self,
        handle: u64,
        batches: impl Iterator<Item = &'a Bytes> + Clone,
    ) {
        let length = batches.clone().map(Bytes::len).sum();
        self.frame(KIND_BATCHES, length, handle);
        for batch in batches {
            if batch.len() < COPY_BYTES_MAX {
                self.copied.extend_from_slice(batch);
            } else {
                self.pieces.push(Piece::Copied(self.open_from..self.copied.len()));
                self.open_from = self.copied.len();
                self.pieces.push(Piece::Shared(batch.clone()));
            }
        }
    }

    /// Completes the header and hands the cycle's slices to `write`.
    pub(crate) fn finish<T>(
        &mut self,
        directory_id: &[u8; 16],
        header: &mut Header,
        write: impl FnOnce(&[IoSlice<'_>]) -> T,
    ) -> T {
        let padding = self.size_bytes() as usize - HEADER_BYTES - self.length;
        self.pieces.push(Piece::Copied(self.open_from..self.copied.len()));
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        for piece in &self.pieces {
            match piece {
                Piece::Copied(range) => digest.update(&self.copied[range.clone()]),
                Piece::Shared(bytes) => digest.update(bytes),
            }
        }
        header.length = u32::try_from(self.length).unwrap_or(u32::MAX);
        header.frames_crc = digest.finalize() as u32;
        let mut head = Vec::with_capacity(HEADER_BYTES);
        head.extend_from_slice(MAGIC);
        head.put_u16(if self.has_extent { VERSION } else { VERSION_WITHOUT_EXTENT });
        head.put_u16(0);
        head.extend_from_slice(directory_id);
        head.put_u64(header.generation);
        head.put_u64(header.number);
        head.put_u64(header.synced_through);
        head.put_u32(header.previous_crc);
        head.put_u32(header.length);
        head.put_u32(header.frames_crc);
        header.crc = crc32c(&head);
        head.put_u32(header.crc);
        static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
        let mut slices = Vec::with_capacity(self.pieces.len() + 2);
        slices.push(IoSlice::new(&head));
        for piece in &self.pieces {
            let bytes = match piece {
                Piece::Copied(range) => &self.copied[range.clone()],
                Piece::Shared(bytes) => bytes,
            };
            if !bytes.is_empty() {
                slices.push(IoSlice::new(bytes));
            }
        }
        slices.push(IoSlice::new(&ZEROS[..padding]));
        write(&slices)
    }
}

/// A frame read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Metadata { sequence: u64, record: &'a [u8] },
    LogStart { handle: u64, offset: i64 },
    Batches { handle: u64, at: usize, bytes: &'a [u8] },
    Ends(Vec<End>),
    Truncate { handle: u64, offset: Offset },
    Leadership { handle: u64, leadership: Leadership },
    Swap { handle: u64, swap: Swap },
    Extent { handle: u64, extent: Extent },
}

/// Reads all frames of a cycle whose CRC has been checked; `None` when they do not parse.
pub(crate) fn frames(bytes: &[u8]) -> Option<Vec<Frame<'_>>> {
    let mut fields = Fields::new(bytes);
    let mut frames = Vec::new();
    while !fields.rest().is_empty() {
        let [kind, 0, 0, 0] = fields.array()? else { return None };
        let length = fields.u32()? as usize;
        let handle = fields.u64()?;
        let at = bytes.len() - fields.rest().len();
        let mut body = Fields::new(fields.take(length)?);
        frames.push(match kind {
            KIND_METADATA => Frame::Metadata { sequence: body.number()?, record: body.rest() },
            KIND_LOG_START => Frame::LogStart { handle, offset: body.i64()? },
            KIND_BATCHES => Frame::Batches { handle, at, bytes: body.rest() },
            KIND_SWAP => Frame::Swap { handle, swap: Swap::decode(body.rest())? },
            KIND_EXTENT => Frame::Extent { handle, extent: Extent::decode(&mut body)? },
            KIND_ENDS => {
                let mut ends = Vec::with_capacity(length / 24);
                while !body.rest().is_empty() {
                    ends.push(End { handle: body.u64()?, first: body.i64()?, end: body.i64()? });
                }
                Frame::Ends(ends)
            }
            KIND_TRUNCATE => Frame::Truncate { handle, offset: Offset::new(body.i64()?)? },
            KIND_LEADERSHIP => {
                Frame::Leadership { handle, leadership: Leadership::decode(&mut body)? }
            }
            _ => return None,
        });
    }
    Some(frames)
}

/// The first kind of frame among these that a newer program must have written.
pub(crate) fn unknown_kind(bytes: &[u8]) -> Option<u8> {
    let mut fields = Fields::new(bytes);
    loop {
        let [kind, 0, 0, 0] = fields.array()? else { return None };
        if !(KIND_METADATA..=KIND_LAST).contains(&kind) {
            return Some(kind);
        }
        let length = fields.u32()? as usize;
        fields.u64()?;
        fields.take(length)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            generation: 3,
            number: 9,
            synced_through: 8,
            previous_crc: 77,
            length: 0,
            frames_crc: 0,
            crc: 0,
        }
    }

    #[test]
    fn a_cycle_reads_back_and_every_flipped_bit_shows() {
        let mut cycle = CycleBuilder::default();
        cycle.clear();
        cycle.ends(&[End { handle: 4, first: 10, end: 20 }]);
        cycle.metadata(5, b"record");
        cycle.log_start(6, 11);
        let small = Bytes::from_static(b"small batch");
        let large = Bytes::from(vec![7; 20_000]);
        cycle.batches(8, [&small, &large, &small].into_iter());
        cycle.batches(9, std::iter::once(&large));
        let mut head = header();
        let bytes = cycle.finish(&[1; 16], &mut head, |slices| {
            slices.iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>()
        });
        assert_eq!(bytes.len() as u64, cycle.size_bytes());
        assert_eq!(bytes.len() % 4096, 0);
        let read = Header::decode(&bytes, &[1; 16]).unwrap();
        assert_eq!(read, head);
        assert_eq!(Header::decode(&bytes, &[2; 16]), None);
        let body = &bytes[HEADER_BYTES..HEADER_BYTES + read.length as usize];
        assert_eq!(crc32c(body), read.frames_crc);
        let frames = frames(body).unwrap();
        assert_eq!(frames.len(), 5);
        assert_eq!(frames[0], Frame::Ends(vec![End { handle: 4, first: 10, end: 20 }]));
        assert_eq!(frames[1], Frame::Metadata { sequence: 5, record: b"record" });
        assert_eq!(frames[2], Frame::LogStart { handle: 6, offset: 11 });
        let Frame::Batches { handle: 8, bytes, .. } = &frames[3] else { panic!("{frames:?}") };
        assert_eq!(*bytes, [&small[..], &large, &small].concat());
        for at in 0..HEADER_BYTES {
            let mut bad = body.to_vec();
            bad.splice(0..0, [0; HEADER_BYTES]);
            bad[at] ^= 1;
            assert_eq!(Header::decode(&bad, &[1; 16]), None);
        }
    }

    #[test]
    fn an_extent_reads_back_in_a_cycle_that_older_programs_refuse() {
        let o = |n| Offset::new(n).unwrap();
        let extent =
            Extent { segment: o(5), byte: 70, length: 900, crc: 4, first: o(8), end: o(11) };
        let mut cycle = CycleBuilder::default();
        for with in [false, true, false] {
            cycle.clear();
            cycle.log_start(6, 11);
            if with {
                cycle.extent(3, &extent);
            }
            let bytes = cycle.finish(&[1; 16], &mut header(), |slices| {
                slices.iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>()
            });
            assert_eq!(bytes[4], if with { 2 } else { 1 }, "the version");
            let read = Header::decode(&bytes, &[1; 16]).unwrap();
            let frames = frames(&bytes[HEADER_BYTES..][..read.length as usize]).unwrap();
            let found = frames.contains(&Frame::Extent { handle: 3, extent });
            assert_eq!(found, with);
        }
        let mut body = Vec::new();
        for wrong in [Extent { end: o(8), ..extent }, Extent { segment: o(9), ..extent }] {
            cycle.clear();
            cycle.extent(3, &wrong);
            cycle.finish(&[1; 16], &mut header(), |slices| body = slices[1].to_vec());
            assert_eq!(frames(&body), None, "{wrong:?}");
        }
    }

    #[test]
    fn frames_of_any_bytes_are_a_value_or_none() {
        for length in 0..64 {
            for fill in [0, 1, 2, 3, 4, 255] {
                let _ = frames(&vec![fill; length]);
            }
        }
        assert!(frames(&[1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
