//! A segment's other indexes: by time, by label, and of aborted transactions. Hints, whose readers check them and make them anew.
//!
//! Invariant: whatever stands in one of these files, it is a notice: no record is lost by it.
//! Neighbours: [`super::verify`] asks for each sealed segment; `segment::{index, labels, txnindex}` have the tables.

use super::finding::Finding;
use super::survey::InspectError;
use crate::Partition;
use crate::disk::{Disk, OpenMode, read_full_at};
use crate::encoding::crc32c;
use crate::segment::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use crate::segment::{Segment, labels, path, txnindex};
use std::io;
use std::path::Path;

const MADE_AGAIN: &str = "nothing to do: its next reader makes it again";
/// A list of aborted transactions that is longer is not one.
const TXNINDEX_BYTES_MAX: u64 = 64 << 20;

/// What is wrong with them, a notice each.
pub(crate) fn judge(
    disk: &dyn Disk,
    partition: &Partition,
    segment: &Segment,
) -> Result<Vec<Finding>, InspectError> {
    let file = |extension| path(partition.folder(), segment.base(), extension);
    let mut found = Vec::new();
    let mut tell = |name: &Path, what: &str| found.push(Finding::notice(name, what, MADE_AGAIN));
    // No longer than an index of this log can be, so that it is not read to see that.
    let entries = segment.written() / OFFSET_ENTRY_BYTES as u64;
    let name = file("timeindex");
    match contents(disk, &name, entries * TIME_ENTRY_BYTES as u64)? {
        Contents::Bytes(bytes) if !rises(&bytes, segment) => {
            tell(&name, "it does not agree with its log")
        }
        Contents::TooLong => tell(&name, "it is longer than its log allows"),
        _ => {}
    }
    let name = file("labels");
    match contents(disk, &name, labels::bytes_max(segment.written()))? {
        Contents::Bytes(bytes) if !has_its_crc(&bytes) => tell(&name, "its CRC does not match"),
        Contents::TooLong => tell(&name, "it is longer than its log allows"),
        _ => {}
    }
    let name = file("txnindex");
    match contents(disk, &name, TXNINDEX_BYTES_MAX)? {
        Contents::Bytes(bytes) if txnindex::decode(&bytes).is_none() => {
            tell(&name, "it is not a list of transactions");
        }
        Contents::TooLong => tell(&name, "it is longer than any list"),
        _ => {}
    }
    Ok(found)
}

enum Contents {
    Missing,
    Bytes(Vec<u8>),
    TooLong,
}

fn contents(disk: &dyn Disk, name: &Path, bytes_max: u64) -> Result<Contents, InspectError> {
    let io = InspectError::io(name);
    let file = match disk.open(name, OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Contents::Missing),
        file => file.map_err(&io)?,
    };
    let size = file.size_bytes().map_err(&io)?;
    if size > bytes_max {
        return Ok(Contents::TooLong);
    }
    let mut bytes = vec![0; size as usize];
    let n = read_full_at(&*file, &mut bytes, 0).map_err(&io)?;
    bytes.truncate(n);
    Ok(Contents::Bytes(bytes))
}

/// Timestamps rise, offsets do not fall, and none is above the segment's largest.
fn rises(bytes: &[u8], segment: &Segment) -> bool {
    let (entries, rest) = bytes.as_chunks::<TIME_ENTRY_BYTES>();
    let read = |e: &[u8; TIME_ENTRY_BYTES]| {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *e;
        (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
    };
    rest.is_empty()
        && entries.is_sorted_by(|a, b| read(a).0 < read(b).0 && read(a).1 <= read(b).1)
        && entries.last().is_none_or(|e| read(e).0 <= segment.times().max_timestamp)
}

fn has_its_crc(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<4>()
        .is_some_and(|(content, crc)| crc32c(content) == u32::from_le_bytes(*crc))
}
