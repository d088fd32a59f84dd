//! Lookups by time and by label on the simulated log: equal to a plain scan, whatever became of the indexes.

use crate::sim::Sim;
use headwater_log::batch::{self, BatchHeader, RecordView};
use headwater_log::{LabelHash, Labeller, Offset, Partition, ReadError, ReadLimit};
use std::ops::Range;

/// A record's timestamp follows from its value, so that the account need not keep it, and goes back as often as on.
pub(crate) fn timestamp_of(value: &[u8]) -> i64 {
    let mix = value
        .iter()
        .take(24)
        .fold(0u64, |all, byte| (all ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    1_800_000_000_000 + (mix >> 20) as i64 % 5_000
}

/// The last digit of the value's number: each of ten labels is rare enough to be passed over now and then.
fn label_of(value: &[u8]) -> Option<&[u8]> {
    let bar = value.iter().position(|byte| *byte == b'|')?;
    value.get(bar.checked_sub(1)?..bar)
}

fn label<'a>(_: &BatchHeader, record: &RecordView<'a>) -> Option<&'a [u8]> {
    record.value.and_then(label_of)
}

pub(crate) const LABELLER: Labeller = Labeller { id: 1, label };

/// Files that the log makes again when they are missing or wrong.
const HINTS: [&str; 5] = [".index", ".timeindex", ".labels", ".txnindex", ".snapshot"];

impl Sim {
    /// Looks things up in the log as it is now.
    pub(crate) fn look_up(&self, topic: &str, partition: usize) {
        let Some(partition) = self.partition(topic, partition) else { return };
        if partition.missing().is_some() || self.disk.is_stopped() {
            return;
        }
        match check_lookups(&partition) {
            // The lookup itself met the fault.
            Err(_) if self.disk.has_failed() || self.disk.is_stopped() => {}
            other => other.expect("lookups of what can be read"),
        }
    }

    /// Spoils one index file of a partition behind the log's back.
    pub(crate) fn spoil(&self, topic: &str, partition: usize, how: u32) {
        let folder = format!("/{topic}-{partition}.");
        let hints: Vec<String> = self
            .disk
            .files()
            .into_iter()
            .filter(|f| f.contains(&folder) && !f.contains(".deleted"))
            .filter(|f| HINTS.iter().any(|e| f.ends_with(e)))
            .collect();
        let Some(name) = hints.get(how as usize % hints.len().max(1)) else { return };
        let mut bytes = self.disk.contents(name).expect("listed");
        let at = how as usize * 7 % bytes.len().max(1);
        match how % 4 {
            0 => bytes.clear(),
            1 => bytes.truncate(at),
            2 => bytes.fill(0x55),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (how % 8);
                }
            }
        }
        self.disk.plant(name, &bytes);
    }
}

/// A record as a scan finds it.
struct Scanned {
    offset: i64,
    timestamp_ms: i64,
    value: Vec<u8>,
}

fn scan(partition: &Partition) -> Result<Vec<Scanned>, ReadError> {
    let start = partition.positions().log_start;
    let (mut from, mut found) = (start, vec![]);
    loop {
        let read = partition.read(from, 3_000, ReadLimit::HighWatermark)?;
        if read.batches.is_empty() && read.next == from {
            return Ok(found);
        }
        for bytes in &read.batches {
            for record in batch::records(bytes).expect("readable") {
                let record = record.expect("whole");
                let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
                if offset >= start.get() {
                    let value = record.value.map(Vec::from).unwrap_or_default();
                    found.push(Scanned { offset, timestamp_ms, value });
                }
            }
        }
        from = read.next;
    }
}

/// Compares lookups with a scan.
pub(crate) fn check_lookups(partition: &Partition) -> Result<(), ReadError> {
    let name = format!("{}-{}", partition.topic(), partition.id());
    let found = scan(partition)?;
    let records: Vec<(i64, i64)> = found.iter().map(|r| (r.offset, r.timestamp_ms)).collect();
    let Some(newest) = records.iter().map(|(_, t)| *t).max() else {
        assert_eq!(partition.offset_of_max_timestamp()?, None, "{name} is empty");
        return Ok(());
    };
    let first = records.iter().find(|(_, t)| *t == newest).copied();
    let answer = partition.offset_of_max_timestamp()?;
    assert_eq!(answer.map(|a| (a.offset.get(), a.timestamp_ms)), first, "{name}: newest");
    let samples = records.iter().step_by(records.len() / 6 + 1).map(|(_, t)| *t);
    for wanted in samples.flat_map(|t| [t, t + 1]).chain([0, newest, newest + 1]) {
        let expected = records.iter().find(|(_, t)| *t >= wanted).copied();
        let answer = partition.offset_for_timestamp(wanted)?;
        let answer = answer.map(|a| (a.offset.get(), a.timestamp_ms));
        assert_eq!(answer, expected, "{name}: first at or after {wanted}");
    }
    let positions = partition.positions();
    for label in [b"1", b"8"] {
        let expected: Vec<i64> = found
            .iter()
            .filter(|r| label_of(&r.value) == Some(&label[..]))
            .map(|r| r.offset)
            .collect();
        let span = positions.log_start..positions.high_watermark;
        assert_eq!(by_label(partition, label, span)?, expected, "{name}: label {label:?}");
    }
    Ok(())
}

fn by_label(
    partition: &Partition,
    label: &[u8],
    span: Range<Offset>,
) -> Result<Vec<i64>, ReadError> {
    let (mut from, mut found) = (span.start, vec![]);
    while from < span.end {
        let hash = [LabelHash::of(label)];
        let way = partition.next_with_labels(from, &hash, ReadLimit::HighWatermark)?;
        assert!(from <= way.next && way.next <= way.until, "{way:?} from {from}");
        let mut at = way.next;
        while at < way.until {
            let read = partition.read(at, 1, ReadLimit::HighWatermark)?;
            for bytes in &read.batches {
                for record in batch::records(bytes).expect("readable") {
                    let record = record.expect("whole");
                    let is = record.value.as_deref().and_then(label_of) == Some(label);
                    if is && record.offset >= at.get() {
                        found.push(record.offset);
                    }
                }
            }
            assert!(read.next > at, "a reader that stands still");
            at = read.next;
        }
        assert!(at.max(way.until) > from, "a reader that stands still at {from}: {way:?}");
        from = at.max(way.until);
    }
    Ok(found)
}
