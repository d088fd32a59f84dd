//! The segment side of a partition: where committed batches go, room for them, rolling, and the lazy write.
//!
//! Invariant: room is reserved before the journal is written, so an acknowledged batch always finds its place; and a batch is
//! written to its segment only after its cycle was synced.

use super::producers::Producers;
use super::state::{State, TailBatch};
use super::{Condition, Partition};
use crate::Offset;
use crate::disk::{DiskFile, OpenMode};
use crate::segment::index::{INTERVAL_BYTES, Interval, TIME_ENTRY_BYTES};
use crate::segment::{Segment, path, remove_hints};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The first reservation of a segment; each further one is twice the one before.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// No reservation is larger than this.
const RESERVE_BYTES_MAX: u64 = 8 << 20;
/// Folders put aside for one partition before the sweep removes them.
const ASIDE_MAX: u32 = 100;
/// Kafka's index positions are i32.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = i32::MAX as u64;

/// The writer's half of a partition, under its own lock.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// Bytes of the active segment once all that is planned is written.
    planned: u64,
    /// Bytes of the active segment for which there is room.
    reserved: u64,
    /// Size of the next reservation.
    reserve_next: u64,
    /// Entries that an index of the active segment has once all that is planned is written, and what decides on the next.
    planned_entries: u64,
    planned_interval: Interval,
    /// The folder exists, as far as this process knows.
    folder_made: bool,
    /// Names in the folder changed since it was last synced.
    pub(super) folder_dirty: bool,
    /// Segments written to since they were last synced.
    pub(super) dirty: Vec<Arc<Segment>>,
    /// Base of the newest segment that the persisted checkpoint names: those below it are sealed there, and no recovery from
    /// it will touch them.
    pub(super) checkpointed: Offset,
    /// The next batch begins a segment, whatever room the active one has.
    roll_next: bool,
    /// First of the segments that a compaction swap on its way will replace: they are not removed one by one meanwhile.
    pub(super) pinned: Option<Offset>,
    /// The persisted catalog knows this partition.
    pub(super) in_catalog: bool,
    /// The producers as of `folded`: of all that the segments hold.
    pub(super) producers: Producers,
    pub(super) folded: Offset,
    /// Base of the newest segment whose name bulk has made durable.
    pub(super) named: Option<Offset>,
    /// While a recovery applies the journal: first and end of the offsets that lie together in one segment, because the bytes
    /// of some of them are nowhere else.
    pub(super) kept: Vec<(Offset, Offset)>,
}

/// Why batches found no place.
#[derive(Debug)]
pub(crate) enum PlanError {
    /// No room: the batches must be cut.
    Full,
    /// The disk answered something else: the directory goes offline.
    Io(String),
}

impl Writer {
    /// For a partition whose active segment has this many bytes.
    pub(super) fn resumed(planned: u64, folder_made: bool, checkpointed: Offset) -> Self {
        Self {
            planned,
            planned_entries: planned / INTERVAL_BYTES,
            reserve_next: RESERVE_BYTES_MIN,
            folder_made,
            checkpointed,
            ..Self::default()
        }
    }

    /// Recovery found more bytes in the active segment.
    pub(super) fn replan(&mut self, planned: u64) {
        self.planned = planned;
        self.planned_entries = planned / INTERVAL_BYTES;
        self.reserved = 0;
    }

    /// What follows goes to a segment of its own.
    pub(super) fn force_roll(&mut self) {
        self.roll_next = true;
    }

    /// Room beyond what is planned.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.reserved.saturating_sub(self.planned)
    }

    /// Segments from the one at `newest` on were cut or removed.
    pub(super) fn cut(&mut self, newest: Offset) {
        self.reserve_next = RESERVE_BYTES_MIN;
        self.roll_next = false;
        self.folder_dirty = true;
        self.named = None;
        // The segment that is active again is not what the persisted checkpoint has sealed.
        self.checkpointed = self.checkpointed.min(newest);
    }

    /// Recovery found the folder.
    pub(super) fn resume_folder(&mut self) {
        self.folder_made = true;
        self.folder_dirty = true;
        self.replan(0);
    }
}

fn classify(error: &io::Error, what: &Path) -> PlanError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PlanError::Full,
        _ => PlanError::Io(format!("{}: {error}", what.display())),
    }
}

impl Partition {
    /// Gives each batch its segment and reserves the room, rolling where need be. On error nothing is planned.
    pub(super) fn plan(
        &self,
        writer: &mut Writer,
        batches: &mut [TailBatch],
    ) -> Result<(), PlanError> {
        loop {
            let result = self.try_plan(writer, batches);
            if result.is_err() {
                self.unplan(writer, &self.state.lock());
            }
            // As long as something is kept back for this: it becomes less each time.
            let again = matches!(result, Err(PlanError::Full))
                && self.has_reserve()
                && self.shared.ballast.give();
            if !again {
                return result;
            }
        }
    }

    /// Whether the room that is kept back is for this partition: the log's own state, and whatever a recovery writes again.
    pub(super) fn has_reserve(&self) -> bool {
        self.topic.is_internal() || self.shared.recovering.load(Ordering::Acquire)
    }

    /// Takes back the places of batches that are not committed, and segments that were begun for them.
    pub(super) fn unplan(&self, writer: &mut Writer, state: &State) {
        let unwritten = state.tail.iter().skip(state.position(state.flushed));
        let pending: Vec<_> = unwritten
            .take_while(|b| b.base < state.committed)
            .map(|b| (b.segment, b.bytes.len() as u64))
            .collect();
        let mut segments = self.segments.write();
        while let Some(last) = segments.last() {
            let planned: u64 =
                pending.iter().filter(|(s, _)| *s == last.base()).map(|(_, n)| n).sum();
            writer.planned = last.written() + planned;
            // There are at most so many: what was counted for the batches that go may count on.
            writer.planned_entries = writer.planned_entries.min(writer.planned / INTERVAL_BYTES);
            if writer.planned > 0 {
                break;
            }
            self.shared.forget_segment(last.key());
            // Its state of producers holds, but what begins here after a truncation may have another.
            let _ = self.shared.disk.remove_file(&path(&self.folder, last.base(), "snapshot"));
            segments.pop();
            writer.planned = 0;
        }
        // Room that was reserved may have been given back with a roll: it is asked for again.
        writer.reserved = 0;
    }

    fn try_plan(&self, writer: &mut Writer, batches: &mut [TailBatch]) -> Result<(), PlanError> {
        let settings = self.settings.read();
        let segment_bytes = settings.segment_bytes.clamp(1, SEGMENT_BYTES_LIMIT);
        // As Kafka: a record cannot be compacted in time while its segment is open.
        let lag = settings.compaction_lag_ms_max.filter(|_| settings.cleanup.compacts());
        let segment_ms = settings.segment_ms.min(lag.unwrap_or(u64::MAX));
        let segment_ms = i64::try_from(segment_ms).unwrap_or(i64::MAX);
        // Kafka's rule for both indexes together: the time index has the larger entries, and one more at the end.
        let index_bytes_max = u64::from(settings.index_bytes_max);
        let entries_max = index_bytes_max / TIME_ENTRY_BYTES as u64;
        drop(settings);
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let mut active = self.segments.read().last().cloned();
        // Reserve once per run of batches in a segment, not once per batch.
        let mut need = writer.planned;
        let (mut entries, mut interval) = (writer.planned_entries, writer.planned_interval);
        for batch in batches {
            let size = batch.bytes.len() as u64;
            // Kafka's index of transactions is bounded like the others, and in memory until the segment is sealed.
            let kept =
                writer.kept.iter().find(|(from, end)| *from <= batch.base && batch.base < *end);
            let full = |s: &Segment| {
                if let Some((from, _)) = kept.filter(|_| !writer.roll_next) {
                    return s.base() < *from;
                }
                let old = now_ms.saturating_sub(s.times().first_append_ms) >= segment_ms;
                let distant = batch.last.get() - s.base().get() > i64::from(i32::MAX);
                let indexed = entries + 1 >= entries_max || s.aborted_bytes() >= index_bytes_max;
                let full = need + size > segment_bytes || old || distant || indexed;
                writer.roll_next || need > 0 && full
            };
            let segment = match active.as_ref().filter(|s| !full(s)) {
                Some(segment) => Arc::clone(segment),
                None => {
                    self.reserve(writer, active.as_ref(), need)?;
                    if let Some(full) = active.as_ref().filter(|s| s.written() == need) {
                        self.seal(writer, full, batch.base)
                            .map_err(|e| classify(&e, &self.folder))?;
                    }
                    let rolled = self.roll(writer, batch.base, now_ms)?;
                    (need, entries, interval) = (0, 0, Interval::default());
                    active.insert(rolled).clone()
                }
            };
            batch.segment = segment.base();
            segment.note_append(now_ms);
            need += size;
            entries += u64::from(interval.passes(size));
        }
        self.reserve(writer, active.as_ref(), need)?;
        writer.planned = need;
        (writer.planned_entries, writer.planned_interval) = (entries, interval);
        Ok(())
    }

    /// Makes sure that the active segment has room up to byte `need`.
    fn reserve(
        &self,
        writer: &mut Writer,
        active: Option<&Arc<Segment>>,
        need: u64,
    ) -> Result<(), PlanError> {
        let Some(active) = active.filter(|_| need > writer.reserved) else {
            return Ok(());
        };
        let from = writer.reserved.max(active.written());
        if need <= from {
            return Ok(());
        }
        if !self.has_reserve() && !self.shared.ballast.is_whole() {
            // What there is was given back for the log's own state.
            return Err(PlanError::Full);
        }
        let name = path(&self.folder, active.base(), "log");
        let file = self.open_segment(active).map_err(|e| classify(&e, &name))?;
        let chunk = writer.reserve_next.max(need - from);
        let got = match file.reserve(from, chunk) {
            // No room for a generous piece: what is needed now will do.
            Err(e) if matches!(classify(&e, &name), PlanError::Full) && chunk > need - from => {
                file.reserve(from, need - from).map(|()| need - from)
            }
            other => other.map(|()| chunk),
        };
        writer.reserved = from + got.map_err(|e| classify(&e, &name))?;
        writer.reserve_next = (writer.reserve_next * 2).min(RESERVE_BYTES_MAX);
        Ok(())
    }

    /// Begins a segment at `base`.
    fn roll(
        &self,
        writer: &mut Writer,
        base: Offset,
        now_ms: i64,
    ) -> Result<Arc<Segment>, PlanError> {
        let disk = &*self.shared.disk;
        if !writer.folder_made {
            self.make_folder(writer.in_catalog).map_err(|e| classify(&e, &self.folder))?;
            writer.folder_made = true;
        }
        let name = path(&self.folder, base, "log");
        // A recovery writes the same bytes again and cuts the file when it is done.
        let recovering = self.shared.recovering.load(Ordering::Acquire);
        let mode = if recovering { OpenMode::Create } else { OpenMode::Truncate };
        if recovering {
            // Of the life before: what it had at these offsets may not be what they get now.
            remove_hints(disk, &self.folder, base).map_err(|e| classify(&e, &name))?;
        }
        let file = disk.open(&name, mode).map_err(|e| classify(&e, &name))?;
        let segment = Arc::new(Segment::new(base, now_ms));
        self.shared.files.put(segment.key(), file);
        self.segments.write().push(Arc::clone(&segment));
        writer.folder_dirty = true;
        writer.roll_next = false;
        writer.planned = 0;
        writer.reserved = 0;
        writer.reserve_next = RESERVE_BYTES_MIN;
        Ok(segment)
    }

    /// Ends a segment that is wholly written: gives back what was reserved beyond its end, and writes what belongs to it. The
    /// next one begins at `end`.
    fn seal(&self, writer: &Writer, segment: &Arc<Segment>, end: Offset) -> io::Result<()> {
        match self.open_segment(segment) {
            // Found missing by recovery, which has said so.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // What lies beyond may be all that is left of something.
            _ if self.is_damaged() => {}
            file => {
                let (file, written) = (file?, segment.written());
                // One that is shorter is damaged: whoever reads it says so, and nothing is made up.
                if file.size_bytes()? >= written {
                    file.truncate(written)?;
                }
            }
        }
        self.shared.indexes.seal(segment, &self.folder);
        segment.store_aborted(&*self.shared.disk, &self.folder);
        self.store_snapshot(writer, end);
        self.label_later(segment);
        Ok(())
    }

    /// Makes the folder; what an earlier topic of the name left there is put aside for the sweep.
    fn make_folder(&self, in_catalog: bool) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let made = match disk.create_dir(&self.folder) {
            // Its own, made after the last checkpoint.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && in_catalog => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                // A start that crashed may have put one aside already.
                for attempt in 0..ASIDE_MAX {
                    let name = format!("{:016x}-{attempt}.deleted", self.handle);
                    if disk.rename(&self.folder, &self.folder.with_file_name(name)).is_ok() {
                        break;
                    }
                }
                disk.create_dir(&self.folder)
            }
            other => other,
        };
        // Once it is there: a checkpoint that clears the mark syncs the folder's name, and one that describes a segment in
        // it waits for the writer's lock, which is held here.
        self.shared.topics_dirty.store(true, Ordering::Release);
        made
    }

    pub(super) fn open_segment(&self, segment: &Segment) -> io::Result<Arc<dyn DiskFile>> {
        let name = path(&self.folder, segment.base(), "log");
        self.shared.files.get(segment.key(), &name)
    }

    /// Writes committed batches to their segments' page cache. An error takes the directory offline.
    pub(crate) fn flush(&self) -> Result<(), String> {
        let mut writer = self.writer.lock();
        self.flush_locked(&mut writer).inspect_err(|reason| self.shared.go_offline(reason.clone()))
    }

    pub(super) fn flush_locked(&self, writer: &mut Writer) -> Result<(), String> {
        self.flush_placed(writer, false)
    }

    /// As [`Partition::flush_locked`]; `in_place`: the bytes are where they belong.
    pub(super) fn flush_placed(&self, writer: &mut Writer, in_place: bool) -> Result<(), String> {
        let pending: Vec<TailBatch> = {
            let state = self.state.lock();
            let from = state.position(state.flushed);
            let committed = state.committed;
            state.tail.iter().skip(from).take_while(|b| b.base < committed).cloned().collect()
        };
        if pending.is_empty() || self.condition() == Condition::Deleted {
            return Ok(());
        }
        let segments = self.segments.read().clone();
        for run in pending.chunk_by(|a, b| a.segment == b.segment) {
            let Some(index) = segments.iter().rposition(|s| s.base() == run[0].segment) else {
                // Retention took the segment before it was written: nobody can read it any more.
                self.fold_written(writer, None, run.iter().map(|b| &b.bytes))
                    .map_err(|e| e.to_string())?;
                continue;
            };
            let segment = &segments[index];
            let name = path(&self.folder, segment.base(), "log");
            let say = |e: io::Error| format!("writing {}: {e}", name.display());
            let file = self.open_segment(segment).map_err(say)?;
            let slices: Vec<IoSlice<'_>> = run.iter().map(|b| IoSlice::new(&b.bytes)).collect();
            if !in_place {
                file.write_at(&slices, segment.written()).map_err(say)?;
            }
            self.fold_written(writer, Some(segment), run.iter().map(|b| &b.bytes))
                .map_err(|e| e.to_string())?;
            let notes: Vec<_> =
                run.iter().map(|b| (b.base, b.last, b.max_timestamp, b.bytes.len())).collect();
            segment.note_written(&notes);
            if !writer.dirty.iter().any(|s| Arc::ptr_eq(s, segment)) {
                writer.dirty.push(Arc::clone(segment));
            }
            let end = run.last().map_or(writer.folded, |b| b.last.plus(1));
            writer.folded = end;
            if segments.get(index + 1).is_some_and(|next| next.base() == end) {
                self.seal(writer, segment, end).map_err(say)?;
            }
        }
        let mut state = self.state.lock();
        let bytes: usize = pending.iter().map(|b| b.bytes.len()).sum();
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
        if let Some(last) = pending.last() {
            state.flushed = last.last.plus(1);
            writer.folded = state.flushed;
        }
        Ok(())
    }
}
