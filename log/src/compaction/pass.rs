//! One pass over one partition: fill the map from the dirty part, then write each group of segments again without what is
//! superfluous.
//!
//! Everything is read in pieces and every batch's CRC is checked; memory is the map, one piece, one batch and what it is written
//! to. A segment of which nothing would go is not written again: flash wear is money.
//!
//! Invariant: what a pass read is what it judged: an input is open all along, and a swap is asked for only when its output is
//! synced. Neighbours: `cleaner` runs it, `swap` puts the outputs into their places.

use super::cleaner::Pace;
use super::offset_map::OffsetMap;
use super::plan::{Due, Now, Plan, SegmentFacts, group};
use super::rewrite::{Body, Order, Rewritten, UNSTAMPED, emptied, rewrite};
use super::swap::{Swap, cleaned_path};
use super::transactions::{Marker, Transactions, marker_of};
use super::{CompactionOptions, PassError};
use crate::Partition;
use crate::batch::{self, BatchError, BatchHeader, HEADER_BYTES};
use crate::disk::{DiskFile, OpenMode, read_full_at};
use crate::metadata::TopicSettings;
use crate::segment::txnindex::Aborted;
use crate::segment::{Segment, path};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

/// Read, and written, at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What a pass did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    /// By how much the log got smaller.
    pub(super) removed_bytes: u64,
    /// Records without a key: they cannot be compacted and go, as in Kafka.
    pub(super) keyless_records: u64,
    /// Everything below is clean now.
    pub(super) cleaned_to: i64,
}

/// The last that is known of a producer (Kafka's `lastRecordsOfActiveProducers`).
#[derive(Debug, Clone, Copy)]
pub(super) struct LastOfProducer {
    pub(super) epoch: i16,
    /// `None`: only a marker is known.
    pub(super) last_offset: Option<i64>,
}

/// A pass, as it begins.
pub(super) struct Pass<'a> {
    pub(super) partition: &'a Partition,
    /// The cleanable segments.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) facts: Vec<SegmentFacts>,
    pub(super) plan: Plan,
    pub(super) settings: Arc<TopicSettings>,
    pub(super) options: CompactionOptions,
    pub(super) now: Now,
    pub(super) producers: HashMap<i64, LastOfProducer>,
    pub(super) pace: &'a Pace<'a>,
    /// Puts an output into the place of its inputs.
    pub(super) swap: &'a dyn Fn(Swap, Arc<Segment>) -> Result<(), PassError>,
    pub(super) done: Done,
}

/// What was decided of a batch before its records are looked at.
struct Judgement {
    /// None of its records stays.
    discard: bool,
    /// Tombstones in it have had their time.
    expired: bool,
    order: Order,
}

impl Pass<'_> {
    /// Runs it. What was swapped before an error stays so; `done` says what was read and written in any case.
    pub(super) fn run(&mut self) -> Result<(), PassError> {
        let disk = self.partition.disk();
        let secret = disk.random_id().map_err(PassError::disk(self.partition.folder()))?;
        let mut map = OffsetMap::new(self.options.memory_bytes, secret);
        let map_end = self.fill(&mut map)?;
        // Kafka writes again all up to where the map came to: older records of its keys may lie anywhere below.
        let below = |s: &&SegmentFacts| s.base < map_end || self.plan.due == Some(Due::Horizon);
        let count = self.facts.iter().take_while(below).count();
        let end = self.end_of(count.saturating_sub(1));
        let groups = group(&self.facts[..count], end, self.settings.segment_bytes);
        let mut transactions = Transactions::new(self.partition.aborted_within(0, end)?);
        let mut first = 0;
        for size in groups {
            self.clean(first..first + size, &map, map_end, &mut transactions)?;
            first += size;
        }
        self.done.cleaned_to = map_end;
        Ok(())
    }

    /// Where the segment of this number ends.
    fn end_of(&self, number: usize) -> i64 {
        self.facts.get(number + 1).map_or(self.plan.end, |next| next.base)
    }

    /// Notes the newest offset of every key of the dirty part, as far as the map has room; returns how far that is.
    fn fill(&mut self, map: &mut OffsetMap) -> Result<i64, PassError> {
        let from = self.plan.dirty_from;
        let aborted = self.partition.aborted_within(from, self.plan.end)?;
        let mut transactions = Transactions::new(aborted);
        let mut reached = from;
        for number in 0..self.segments.len() {
            let end = self.end_of(number);
            if end <= from {
                continue;
            }
            let segment = Arc::clone(&self.segments[number]);
            let mut batches = Batches::open(self.partition, &segment, self.pace)?;
            while let Some((header, bytes)) = batches.next()? {
                if header.last_offset() < from {
                    continue;
                }
                let body = batches.body(&bytes, &header)?;
                if header.is_control() {
                    transactions.marker(&header, marker(&body));
                    continue;
                }
                if transactions.batch(&header) {
                    continue;
                }
                for record in body.records() {
                    let record = record.map_err(|e| batches.damaged(e))?;
                    let Some(key) = record.key.filter(|_| record.offset >= from) else { continue };
                    if map.put(key, record.offset).is_err() {
                        self.done.read_bytes += batches.read_bytes;
                        // The whole segment waits, unless it is the first: a pass has to get somewhere.
                        let begun = self.facts[number].base <= from;
                        return Ok(if begun { record.offset } else { reached });
                    }
                }
            }
            self.done.read_bytes += batches.read_bytes;
            reached = end;
        }
        Ok(reached)
    }

    /// Writes one group again, if that changes anything.
    fn clean(
        &mut self,
        numbers: std::ops::Range<usize>,
        map: &OffsetMap,
        map_end: i64,
        transactions: &mut Transactions,
    ) -> Result<(), PassError> {
        let inputs: Vec<_> = self.segments[numbers].to_vec();
        if let [only] = &inputs[..] {
            let mut probe = Output::Probe(Probe::default());
            let mut walked = transactions.clone();
            self.walk(&inputs, map, map_end, &mut walked, &mut probe)?;
            // Nothing but the batch that says which offsets were here: there is nothing to gain.
            let spent = only.written() == HEADER_BYTES as u64;
            if let Output::Probe(Probe { changed, horizon_ms }) = probe
                && (spent || !changed)
            {
                only.set_horizon(horizon_ms);
                // Its own list names those whose ends are here.
                walked.take_kept();
                *transactions = walked;
                return Ok(());
            }
        }
        let number = self.partition.swaps() + 1;
        let writing = Writing::create(self.partition, &inputs, number)?;
        let path = writing.path.clone();
        let result = self.write(&inputs, map, map_end, transactions, writing, number);
        if let Err(e) = &result
            && !matches!(e, PassError::Offline(_))
        {
            // An orphan from here on. If it cannot be removed now, the next start's sweep does.
            let _ = self.partition.disk().remove_file(&path);
        }
        result
    }

    fn write(
        &mut self,
        inputs: &[Arc<Segment>],
        map: &OffsetMap,
        map_end: i64,
        transactions: &mut Transactions,
        writing: Writing,
        number: u64,
    ) -> Result<(), PassError> {
        // Open until the swap is done, so that the committer, who renames over the first, does not have to free its blocks.
        let opened = inputs.iter().map(|s| self.partition.open_input(s));
        let _open: Vec<_> =
            opened.collect::<Result<_, _>>().map_err(PassError::disk(self.partition.folder()))?;
        let mut output = Output::Writing(Box::new(writing));
        self.walk(inputs, map, map_end, transactions, &mut output)?;
        let Output::Writing(mut writing) = output else { return Ok(()) };
        writing.finish(self.pace)?;
        let aborted = transactions.take_kept();
        let segment = Arc::new(writing.into_segment(inputs));
        segment.set_aborted(Aborted::Here(aborted.clone()));
        let before: u64 = inputs.iter().map(|s| s.written()).sum();
        self.done.written_bytes += segment.written();
        let named = inputs.iter().map(|s| (s.base().get(), s.written())).collect();
        let horizon_ms = segment.horizon_ms();
        let swap = Swap { number, inputs: named, output: segment.entry(), horizon_ms, aborted };
        // The last moment at which it can be given up.
        self.pace.spend(0)?;
        (self.swap)(swap, Arc::clone(&segment))?;
        self.done.removed_bytes += before.saturating_sub(segment.written());
        Ok(())
    }

    /// Walks the batches of a group and gives what is left of each to `output`; ends early when that has seen enough.
    fn walk(
        &mut self,
        inputs: &[Arc<Segment>],
        map: &OffsetMap,
        map_end: i64,
        transactions: &mut Transactions,
        output: &mut Output,
    ) -> Result<(), PassError> {
        let mut keyless = 0;
        for segment in inputs {
            let mut batches = Batches::open(self.partition, segment, self.pace)?;
            while let Some((header, bytes)) = batches.next()? {
                let body = batches.body(&bytes, &header)?;
                let judged = self.judge(&header, &body, transactions);
                let left = rewrite(&body, &bytes, judged.order, |record| {
                    if judged.discard {
                        return false;
                    }
                    if header.is_control() || record.offset >= map_end {
                        return true;
                    }
                    let Some(key) = record.key else {
                        keyless += 1;
                        return false;
                    };
                    map.get(key).is_none_or(|newest| record.offset >= newest)
                        && (record.has_value || !judged.expired)
                });
                let left = left.map_err(|e| batches.damaged(e))?;
                if output.take(&bytes, left, self.pace)?.is_break() {
                    break;
                }
            }
            self.done.read_bytes += batches.read_bytes;
        }
        if matches!(output, Output::Writing(_)) {
            self.done.keyless_records += keyless;
        }
        Ok(())
    }

    fn judge(
        &self,
        header: &BatchHeader,
        body: &Body,
        transactions: &mut Transactions,
    ) -> Judgement {
        let horizon = header.delete_horizon_ms();
        let expired = self.now.trusted && horizon.is_some_and(|horizon| horizon <= self.now.ms);
        let (discard, ends_empty_transaction) = if header.is_control() {
            let empty = transactions.marker(header, marker(body));
            (empty && expired, empty)
        } else {
            (transactions.batch(header), false)
        };
        let last = self.producers.get(&header.producer_id).filter(|_| header.producer_id >= 0);
        let last_of_producer = last.is_some_and(|last| match last.last_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        });
        // So that nobody who walks the files takes the log to end before where this round did (KAFKA-4298's successor).
        let last_of_round = header.last_offset() + 1 == self.plan.end;
        let retention = i64::try_from(self.settings.delete_retention_ms).unwrap_or(i64::MAX);
        let order = Order {
            retain_empty: last_of_producer || last_of_round,
            new_horizon_ms: self.now.trusted.then(|| self.now.ms.saturating_add(retention)),
            ends_empty_transaction,
            compression: self.settings.compression,
        };
        Judgement { discard, expired, order }
    }
}

/// What a control batch says; `None` when its record has gone already.
fn marker(body: &Body) -> Option<Marker> {
    body.records().next().and_then(Result::ok).map(|record| marker_of(record.key))
}

/// Where what is left of the batches goes.
enum Output {
    /// Nowhere: only whether anything changes is asked.
    Probe(Probe),
    Writing(Box<Writing>),
}

#[derive(Debug, Default, Clone, Copy)]
struct Probe {
    changed: bool,
    horizon_ms: Option<i64>,
}

impl Output {
    fn take(
        &mut self,
        bytes: &Bytes,
        left: Rewritten,
        pace: &Pace<'_>,
    ) -> Result<std::ops::ControlFlow<()>, PassError> {
        use std::ops::ControlFlow::{Break, Continue};
        match self {
            Self::Probe(probe) => match left {
                Rewritten::Verbatim { horizon_ms } => {
                    probe.horizon_ms = latest(probe.horizon_ms, horizon_ms);
                }
                _ => {
                    probe.changed = true;
                    return Ok(Break(()));
                }
            },
            Self::Writing(writing) => match left {
                Rewritten::Verbatim { horizon_ms } => writing.put(bytes, horizon_ms, pace)?,
                Rewritten::Changed { bytes, horizon_ms } => {
                    writing.put(&bytes, horizon_ms, pace)?
                }
                Rewritten::Gone => writing.last = Some(bytes.slice(..HEADER_BYTES)),
            },
        }
        Ok(Continue(()))
    }
}

/// The horizon of two together: when the last of their tombstones may go, or at once if one has none yet.
fn latest(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(UNSTAMPED), _) | (_, Some(UNSTAMPED)) => Some(UNSTAMPED),
        (one, other) => one.max(other),
    }
}

/// An output being written.
struct Writing {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    segment: Segment,
    buffer: Vec<u8>,
    at: u64,
    horizon_ms: Option<i64>,
    /// The last batch, if nothing is left of it.
    last: Option<Bytes>,
}

impl Writing {
    fn create(
        partition: &Partition,
        inputs: &[Arc<Segment>],
        number: u64,
    ) -> Result<Self, PassError> {
        let Some(first) = inputs.first() else { return Err(PassError::Overtaken) };
        let path = cleaned_path(partition.folder(), first.base(), number);
        let file =
            partition.disk().open(&path, OpenMode::Truncate).map_err(PassError::disk(&path))?;
        let segment = Segment::new(first.base(), first.times().first_append_ms);
        Ok(Self { path, file, segment, buffer: Vec::new(), at: 0, horizon_ms: None, last: None })
    }

    fn put(
        &mut self,
        bytes: &[u8],
        horizon_ms: Option<i64>,
        pace: &Pace<'_>,
    ) -> Result<(), PassError> {
        let header = BatchHeader::parse(bytes).map_err(|reason| PassError::Damaged {
            path: self.path.clone(),
            byte: self.at,
            offset: self.segment.base().get(),
            reason,
        })?;
        self.horizon_ms = latest(self.horizon_ms, horizon_ms);
        let base = crate::Offset::new(header.base_offset).unwrap_or_default();
        let last = crate::Offset::new(header.last_offset()).unwrap_or_default();
        let newest = header.max_timestamp;
        self.segment.note_written(&[(base, last, newest, bytes.len())]);
        self.buffer.extend_from_slice(bytes);
        self.last = None;
        if self.buffer.len() >= PIECE_BYTES { self.flush(pace) } else { Ok(()) }
    }

    fn flush(&mut self, pace: &Pace<'_>) -> Result<(), PassError> {
        pace.spend(self.buffer.len())?;
        self.file
            .write_at(&[IoSlice::new(&self.buffer)], self.at)
            .map_err(PassError::disk(&self.path))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left and makes the file durable. A segment is never empty: its last batch stays without its records.
    fn finish(&mut self, pace: &Pace<'_>) -> Result<(), PassError> {
        if self.segment.written() == 0
            && let Some(last) = self.last.take()
        {
            self.put(&emptied(&last), None, pace)?;
        }
        self.flush(pace)?;
        let synced = self.file.sync_data();
        synced.map_err(|e| PassError::Offline(format!("syncing {}: {e}", self.path.display())))
    }

    fn into_segment(self, inputs: &[Arc<Segment>]) -> Segment {
        if let Some(newest) = inputs.iter().map(|s| s.times().last_append_ms).max() {
            self.segment.note_append(newest);
        }
        self.segment.set_sparse();
        // Its indexes are those it gathered while it was written: the first reader stores and maps them.
        self.segment.set_sealed(true);
        self.segment.set_horizon(self.horizon_ms);
        self.segment
    }
}

/// The batches of a segment, one after another, each verified.
struct Batches<'a> {
    partition: &'a Partition,
    pace: &'a Pace<'a>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    sparse: bool,
    /// The next batch begins here, and the file ends there.
    at: u64,
    end: u64,
    /// What was read ahead, from `at` on.
    piece: Bytes,
    next_offset: i64,
    read_bytes: u64,
}

impl<'a> Batches<'a> {
    fn open(
        partition: &'a Partition,
        segment: &Arc<Segment>,
        pace: &'a Pace<'a>,
    ) -> Result<Self, PassError> {
        let path = path(partition.folder(), segment.base(), "log");
        let file = partition.open_input(segment).map_err(PassError::disk(&path))?;
        Ok(Self {
            partition,
            pace,
            file,
            path,
            sparse: segment.is_sparse(),
            at: 0,
            end: segment.written(),
            piece: Bytes::new(),
            next_offset: segment.base().get(),
            read_bytes: 0,
        })
    }

    fn damaged(&self, reason: BatchError) -> PassError {
        let (path, offset) = (self.path.clone(), self.next_offset);
        PassError::Damaged { path, byte: self.at, offset, reason }
    }

    /// The records of the batch that was returned last.
    fn body(&self, bytes: &Bytes, header: &BatchHeader) -> Result<Body, PassError> {
        Body::of(bytes, header).map_err(|reason| PassError::Damaged {
            path: self.path.clone(),
            byte: self.at - header.size_bytes() as u64,
            offset: header.base_offset,
            reason,
        })
    }

    fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, PassError> {
        if self.at >= self.end {
            return Ok(None);
        }
        self.have(HEADER_BYTES)?;
        let header = BatchHeader::parse_alone(&self.piece).map_err(|e| self.damaged(e))?;
        // Checked before anything is reserved for it.
        if self.at + header.size_bytes() as u64 > self.end {
            return Err(self.damaged(BatchError::Short));
        }
        self.have(header.size_bytes())?;
        let bytes = self.piece.slice(..header.size_bytes().min(self.piece.len()));
        let header = batch::verify(&bytes).map_err(|e| self.damaged(e))?;
        let follows = if self.sparse {
            header.base_offset >= self.next_offset
        } else {
            header.base_offset == self.next_offset
        };
        if !follows {
            return Err(self.damaged(BatchError::Field("baseOffset")));
        }
        self.next_offset = header.last_offset() + 1;
        self.at += header.size_bytes() as u64;
        self.piece = self.piece.slice(header.size_bytes()..);
        Ok(Some((header, bytes)))
    }

    /// Makes sure that so many bytes are in memory, if the file has them.
    fn have(&mut self, bytes: usize) -> Result<(), PassError> {
        if self.piece.len() >= bytes || self.at + self.piece.len() as u64 >= self.end {
            return Ok(());
        }
        if self.partition.is_deleted() {
            return Err(PassError::Overtaken);
        }
        let want = (self.end - self.at).min(bytes.max(PIECE_BYTES) as u64) as usize;
        self.pace.spend(want)?;
        let mut piece = vec![0; want];
        let n =
            read_full_at(&*self.file, &mut piece, self.at).map_err(PassError::disk(&self.path))?;
        piece.truncate(n);
        self.read_bytes += n as u64;
        self.piece = Bytes::from(piece);
        Ok(())
    }
}
