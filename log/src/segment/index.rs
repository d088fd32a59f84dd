//! The two sparse indexes of a segment, in Kafka's own formats: where to begin looking for an offset, and for a timestamp.
//!
//! `<20 digits>.index`, an entry per more than 4 KiB of log:
//!
//! | byte | field |
//! |---|---|
//! | 0 | u32: last offset of a batch less the segment's base |
//! | 4 | u32: byte of the log where that batch begins |
//!
//! `<20 digits>.timeindex`, an entry where an entry of the other is and the largest timestamp has grown since, and one for the
//! end of the segment:
//!
//! | byte | field |
//! |---|---|
//! | 0 | i64: the largest timestamp of the segment so far |
//! | 8 | u32: last offset of the first batch that has it, less the segment's base |
//!
//! All big-endian. Neither has a magic, a version or a CRC: they are Kafka's, so that its tools read them, and hints. An entry
//! is compared with the batch it names each time it is followed (`read`); one that lies has both made anew from the log.
//!
//! Invariant: entries rise strictly in what they are looked up by, and never fall in what they give.
//! Neighbours: `indexes` loads, writes and makes them anew; `read` follows them.

use super::scan::At;

/// Log bytes between two entries at least (Kafka's `index.interval.bytes`).
pub(crate) const INTERVAL_BYTES: u64 = 4096;
/// Bytes of an entry of the offset index.
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry of the time index, the larger of the two.
pub(crate) const TIME_ENTRY_BYTES: usize = 12;

/// Says which batches get an entry: the same for those that are written and those that are only planned.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Interval {
    since: u64,
}

impl Interval {
    /// Counts a batch; whether it gets an entry.
    pub(crate) fn passes(&mut self, bytes: u64) -> bool {
        let passes = self.since > INTERVAL_BYTES;
        self.since = bytes + if passes { 0 } else { self.since };
        passes
    }
}

/// Both indexes of a segment that is still growing, or is being walked.
#[derive(Debug, Clone)]
pub(crate) struct Growing {
    offsets: Vec<u8>,
    times: Vec<u8>,
    interval: Interval,
    /// The largest timestamp so far, and the last offset of the first batch that has it, less the base.
    newest: Option<(i64, u32)>,
    /// Log bytes that are indexed. Less than there are where batches were written while a reader had the index.
    pub(crate) covered: u64,
    /// The last offset in them, less the base; -1 before the first.
    pub(crate) last: i64,
}

impl Default for Growing {
    fn default() -> Self {
        let (offsets, times) = (Vec::new(), Vec::new());
        Self { offsets, times, interval: Interval::default(), newest: None, covered: 0, last: -1 }
    }
}

impl Growing {
    /// Notes the next batch: the last offset of it less the base, its largest timestamp, where it begins.
    pub(crate) fn note(&mut self, last: i64, max_timestamp: i64, at: u64, bytes: usize) {
        self.covered = at + bytes as u64;
        self.last = last;
        let passes = self.interval.passes(bytes as u64);
        // A segment is rolled before either can be larger.
        let (Ok(last), Ok(at)) = (u32::try_from(last), u32::try_from(at)) else { return };
        // Kafka has no entries for batches without timestamps (-1).
        if max_timestamp >= 0 && self.newest.is_none_or(|(newest, _)| max_timestamp > newest) {
            self.newest = Some((max_timestamp, last));
        }
        if passes {
            self.offsets.extend_from_slice(&last.to_be_bytes());
            self.offsets.extend_from_slice(&at.to_be_bytes());
            self.note_time();
        }
    }

    /// Notes a batch met by a walk over the log of a segment with this base.
    pub(crate) fn note_at(&mut self, base: i64, at: &At) {
        let last = at.header.last_offset() - base;
        // A batch that compaction emptied has no records to be found by time.
        let max_timestamp = if at.header.record_count > 0 { at.header.max_timestamp } else { -1 };
        self.note(last, max_timestamp, at.byte, at.header.size_bytes());
    }

    fn note_time(&mut self) {
        let before = Times(&self.times).last().map(|(timestamp, _)| timestamp);
        if let Some((timestamp, last)) = self.newest.filter(|(t, _)| Some(*t) > before) {
            self.times.extend_from_slice(&timestamp.to_be_bytes());
            self.times.extend_from_slice(&last.to_be_bytes());
        }
    }

    pub(crate) fn offsets(&self) -> Offsets<'_> {
        Offsets(&self.offsets)
    }

    pub(crate) fn times(&self) -> Times<'_> {
        Times(&self.times)
    }

    /// The bytes of both files, for a segment that grows no more.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        self.note_time();
        (self.offsets, self.times)
    }
}

/// An entry of the offset index: a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, less the base.
    pub(crate) last: u32,
    /// Where it begins.
    pub(crate) at: u32,
}

/// An offset index, wherever its bytes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offsets<'a>(pub(crate) &'a [u8]);

impl Offsets<'_> {
    fn entries(&self) -> impl Iterator<Item = OffsetEntry> + '_ {
        self.0.as_chunks::<OFFSET_ENTRY_BYTES>().0.iter().map(Self::entry)
    }

    fn entry(bytes: &[u8; OFFSET_ENTRY_BYTES]) -> OffsetEntry {
        let [a, b, c, d, e, f, g, h] = *bytes;
        OffsetEntry { last: u32::from_be_bytes([a, b, c, d]), at: u32::from_be_bytes([e, f, g, h]) }
    }

    /// The last entry whose batch ends at or before `offset` (less the base): looking begins there. `None`: at the front.
    pub(crate) fn floor(&self, offset: i64) -> Option<OffsetEntry> {
        let entries = self.0.as_chunks::<OFFSET_ENTRY_BYTES>().0;
        let next = entries.partition_point(|e| i64::from(Self::entry(e).last) <= offset);
        entries.get(next.checked_sub(1)?).map(Self::entry)
    }

    pub(crate) fn last(&self) -> Option<OffsetEntry> {
        self.0.as_chunks::<OFFSET_ENTRY_BYTES>().0.last().map(Self::entry)
    }

    /// Whether these bytes can be an index of a log of this length.
    pub(crate) fn are_plausible(&self, log_bytes: u64) -> bool {
        self.0.len().is_multiple_of(OFFSET_ENTRY_BYTES)
            && self.entries().is_sorted_by(|a, b| a.last < b.last && a.at < b.at)
            && self.last().is_none_or(|e| u64::from(e.at) < log_bytes)
    }
}

/// A time index, wherever its bytes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times<'a>(pub(crate) &'a [u8]);

impl Times<'_> {
    fn entry(bytes: &[u8; TIME_ENTRY_BYTES]) -> (i64, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
    }

    /// The last entry with a timestamp of at most `timestamp_ms`: no record before its batch has a larger one, so the first
    /// record with `timestamp_ms` or more is in its batch or behind it. `None`: look from the front.
    pub(crate) fn floor(&self, timestamp_ms: i64) -> Option<(i64, u32)> {
        let entries = self.0.as_chunks::<TIME_ENTRY_BYTES>().0;
        let next = entries.partition_point(|e| Self::entry(e).0 <= timestamp_ms);
        entries.get(next.checked_sub(1)?).map(Self::entry)
    }

    pub(crate) fn last(&self) -> Option<(i64, u32)> {
        self.0.as_chunks::<TIME_ENTRY_BYTES>().0.last().map(Self::entry)
    }

    /// Whether these bytes can be the index of a finished segment with this largest timestamp.
    pub(crate) fn are_plausible(&self, max_timestamp: i64) -> bool {
        let entries = self.0.as_chunks::<TIME_ENTRY_BYTES>().0.iter().map(Self::entry);
        self.0.len().is_multiple_of(TIME_ENTRY_BYTES)
            && entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
            && self.last().map(|(newest, _)| newest)
                == Some(max_timestamp).filter(|timestamp| *timestamp >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of ten offsets and 1,000 bytes each.
    fn grown(timestamps: impl IntoIterator<Item = i64>) -> Growing {
        let mut growing = Growing::default();
        for (i, timestamp) in timestamps.into_iter().enumerate() {
            growing.note(i as i64 * 10 + 9, timestamp, i as u64 * 1000, 1000);
        }
        growing
    }

    #[test]
    fn offset_lookups_never_overshoot() {
        let growing = grown(0..100);
        assert_eq!(growing.covered, 100_000);
        for offset in 0..1000 {
            let at = growing.offsets().floor(offset).map_or(0, |e| u64::from(e.at));
            assert!(at / 1000 * 10 <= offset as u64, "offset {offset} at {at}");
            assert!(offset as u64 - at / 1000 * 10 < 70, "offset {offset} at {at}");
        }
        let (bytes, _) = growing.finish();
        assert!(Offsets(&bytes).are_plausible(100_000));
        assert!(!Offsets(&bytes[1..]).are_plausible(100_000));
        assert!(!Offsets(&bytes).are_plausible(50_000), "points beyond the log");
        let mut wrong = bytes.clone();
        wrong[..8].copy_from_slice(&bytes[8..16]);
        assert!(!Offsets(&wrong).are_plausible(100_000), "does not rise");
    }

    #[test]
    fn time_lookups_never_overshoot_though_time_goes_back() {
        let timestamps: Vec<i64> = (0..200).map(|i| (i * 7_919) % 503 + i / 3).collect();
        let max = *timestamps.iter().max().unwrap();
        let (_, bytes) = grown(timestamps.iter().copied()).finish();
        let times = Times(&bytes);
        assert!(times.are_plausible(max));
        assert!(!times.are_plausible(max + 1), "of another log");
        assert!(!Times(&bytes[..bytes.len() - 12]).are_plausible(max), "cut short");
        for wanted in 0..=max {
            let first = timestamps.iter().position(|t| *t >= wanted).unwrap() as u32;
            let from = times.floor(wanted).map_or(0, |(_, last)| last / 10);
            assert!(from <= first, "{wanted}: from batch {from}, is in {first}");
        }
    }

    #[test]
    fn batches_without_timestamps_have_no_time_entries() {
        let (offsets, times) = grown([-1; 100]).finish();
        assert!(!offsets.is_empty() && times.is_empty());
        assert!(Times(&times).are_plausible(-1) && Times(&times).are_plausible(i64::MIN));
    }
}
