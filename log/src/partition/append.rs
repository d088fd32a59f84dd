//! Appending (step 7): offsets and the epoch are assigned here, under the partition's short lock.
//!
//! From bridge and the Kafka door; to the commit queue. Invariant: an append that returns an error has stored nothing.
//! Neighbours: `producers` judges, `state` holds, `commit` takes what waits.

use super::producers::{Origin, Sequence};
use super::state::State;
use super::{AppendError, Appended, Condition, Partition, Role};
use crate::batch::marker::EndTransaction;
use crate::batch::{self, BatchBuilder, BatchError, BatchHeader, sequence_plus};
use crate::record::RecordParts;
use crate::{Offset, Position};
use bytes::BytesMut;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;

/// An open batch is sealed at this size, however much larger the topic allows one record to be.
const OPEN_BATCH_BYTES_MAX: usize = 512 << 10;

/// A record cannot take more than this beside its key, value and headers, batch header included.
const OVERHEAD_BYTES_MAX: usize = 128;

/// Records without a key that are named, where none may be without.
const KEYLESS_MAX: usize = 100;

impl Partition {
    /// Adds records to the open batch under one lock (step 7). Either all are appended or none.
    /// The batch is sealed by the next commit cycle, by its size limit, or by any other kind of append.
    /// An empty slice is refused as a batch without records is.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then.
    pub fn append(&self, records: &[RecordParts<'_>]) -> Result<Appended, AppendError> {
        if records.is_empty() {
            return Err(BatchError::Field("recordCount").into());
        }
        let limit = self.batch_bytes_max.load(Ordering::Relaxed);
        for record in records {
            check_size(record, limit)?;
        }
        if records.iter().any(|r| r.key.is_none()) && self.settings.read().cleanup.compacts() {
            let keyless = (0..).zip(records).filter(|(_, r)| r.key.is_none());
            all_keyed(keyless.map(|(index, _)| index).take(KEYLESS_MAX).collect())?;
        }
        let mut state = self.state.lock();
        self.check_leads()?;
        self.admit(&state)?;
        let before = state.waiting_bytes();
        let (epoch, base) = (self.epoch(), state.end);
        for record in records {
            if state.open.push(record, limit.min(OPEN_BATCH_BYTES_MAX)).is_none() {
                state.seal(epoch);
                start_open(&mut state);
                // Alone in a batch it fits: its size was checked.
                let fitted = state.open.push(record, limit);
                assert!(fitted.is_some(), "a record that was checked fits a batch of its own");
            } else if state.open.record_count() == 1 {
                start_open(&mut state);
            }
            state.end = state.end.plus(1);
            state.node_sequence = sequence_plus(state.node_sequence, 1);
        }
        state.epochs.appended(epoch, base);
        let last = Offset::new(state.end.get() - 1).unwrap_or(base);
        self.appended(state, before);
        let at = |offset| Position { epoch, offset };
        Ok(Appended { base: at(base), last: at(last), duplicate: false })
    }

    /// Appends one batch made by a Kafka client. Checks what Kafka's broker checks, assigns offset and epoch in place.
    /// A transactional batch begins a transaction where none is open: [`Partition::append_batch_from`] makes sure that its
    /// coordinator knows of it.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then.
    pub fn append_batch(&self, batch: BytesMut) -> Result<Appended, AppendError> {
        self.append_batch_from(batch, Origin::Client)
    }

    /// [`Partition::append_batch`] for a batch of which more is known.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then.
    pub fn append_batch_from(
        &self,
        batch: BytesMut,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        let limit_bytes = self.batch_bytes_max.load(Ordering::Relaxed);
        if batch.len() > limit_bytes {
            return Err(AppendError::TooLarge { size_bytes: batch.len(), limit_bytes });
        }
        // Before the work of looking into it: who waits for room asks again after each cycle.
        if let Err(busy @ AppendError::Busy) = self.admit(&self.state.lock()) {
            return Err(busy);
        }
        let mut header = batch::verify(&batch)?;
        match origin {
            Origin::Coordinator => header.check_from_coordinator()?,
            Origin::Client | Origin::Verified(_) => header.check_from_client()?,
        }
        if header.size_bytes() != batch.len() {
            return Err(BatchError::Field("batchLength").into());
        }
        let keyed = self.settings.read().cleanup.compacts();
        let batch = check_records(batch, &mut header, keyed)?;
        let state = self.state.lock();
        self.check_leads()?;
        if let Sequence::Duplicate(base, last) = state.check_producer(&header, origin)? {
            // In the epoch that the original was appended in: who repeats it waits for the original.
            let epoch = state.epochs.of(base).unwrap_or_default();
            let at = |offset| Position { epoch, offset };
            return Ok(Appended { base: at(base), last: at(last), duplicate: true });
        }
        self.admit(&state)?;
        Ok(self.push(state, batch, &header, None))
    }

    /// Puts a batch that was checked behind all others.
    pub(super) fn push(
        &self,
        mut state: MutexGuard<'_, State>,
        mut batch: BytesMut,
        header: &BatchHeader,
        end: Option<EndTransaction>,
    ) -> Appended {
        let before = state.waiting_bytes();
        let epoch = self.epoch();
        state.seal(epoch);
        let base = state.end;
        batch::place(&mut batch, base, epoch);
        state.push_batch(header, base, batch.freeze());
        state.epochs.appended(epoch, base);
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        state.note_producer(header, base, end, now_ms);
        if header.is_transactional() {
            state.verifications.done(header.producer_id);
        }
        let last = Offset::new(state.end.get() - 1).unwrap_or(base);
        self.appended(state, before);
        let at = |offset| Position { epoch, offset };
        Appended { base: at(base), last: at(last), duplicate: false }
    }

    /// Whether clients append here. With the state locked.
    pub(super) fn check_leads(&self) -> Result<(), AppendError> {
        if self.role() == Role::Follower { Err(AppendError::NotLeader) } else { Ok(()) }
    }

    /// Whether an append may go on now.
    pub(super) fn admit(&self, state: &State) -> Result<(), AppendError> {
        match self.condition() {
            // Its directory is offline, and says why.
            Condition::Well | Condition::Missing => {}
            Condition::Full => return Err(AppendError::DiskFull),
            Condition::Deleted => return Err(AppendError::Deleted),
            Condition::Damaged => {
                return Err(AppendError::Offline(state.damage.clone().unwrap_or_default()));
            }
        }
        if let Some(reason) = self.shared.refuses() {
            return Err(AppendError::Offline(reason));
        }
        if self.shared.uncommitted_bytes.load(Ordering::Relaxed)
            >= self.shared.uncommitted_bytes_max
        {
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    /// Waits for an append that was admitted before the log began to close: it is in the queue then.
    pub(crate) fn finish_append(&self) {
        drop(self.state.lock());
    }

    /// Publishes the new log end and joins the commit queue.
    pub(super) fn appended(&self, mut state: MutexGuard<'_, State>, before_bytes: usize) {
        let grown = state.waiting_bytes().saturating_sub(before_bytes);
        self.shared.note_uncommitted(grown);
        self.points.log_end.store(state.end.get(), Ordering::Release);
        let join = !std::mem::replace(&mut state.queued, true);
        if join {
            // Before the lock is let go: who closes the log finds in the queue all that was admitted.
            self.join_queue();
        }
        drop(state);
    }
}

/// Notes where the open batch, which just got its first record, begins.
fn start_open(state: &mut State) {
    state.open_base = state.end;
    state.open_sequence = state.node_sequence;
}

fn check_size(record: &RecordParts<'_>, limit_bytes: usize) -> Result<(), AppendError> {
    let parts = record.key.map_or(0, <[u8]>::len)
        + record.value.map_or(0, <[u8]>::len)
        + record.headers.encoded().len();
    if parts + OVERHEAD_BYTES_MAX <= limit_bytes {
        return Ok(());
    }
    let size_bytes = BatchBuilder::new().size_bytes_with(record);
    if size_bytes > limit_bytes {
        return Err(AppendError::TooLarge { size_bytes, limit_bytes });
    }
    Ok(())
}

/// As Kafka's LogValidator, which names the records too.
fn all_keyed(keyless: Vec<u32>) -> Result<(), AppendError> {
    if keyless.is_empty() { Ok(()) } else { Err(AppendError::Keyless { records: keyless }) }
}

/// Reads every record of a batch, as Kafka's LogValidator does: a reader must never meet one that does not parse, and the
/// largest timestamp is what the records say, since lookups by time go by it.
fn check_records(
    batch: BytesMut,
    header: &mut BatchHeader,
    compacts: bool,
) -> Result<BytesMut, AppendError> {
    let batch = batch.freeze();
    let mut read = batch::records(&batch)?;
    let (mut newest, mut keyless, mut index) = (None, Vec::new(), 0);
    // Views: a client may put sixteen million headers into a record, which nobody here needs one by one.
    while let Some(record) = read.next_view() {
        let record = record?;
        if compacts && record.key.is_none() && keyless.len() < KEYLESS_MAX {
            keyless.push(index);
        }
        newest = newest.max(Some(record.timestamp_ms));
        index += 1;
    }
    drop(read);
    all_keyed(keyless)?;
    // Nobody else holds it, so this does not copy.
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if let Some(newest) = newest.filter(|newest| *newest != header.max_timestamp) {
        batch::set_max_timestamp(&mut batch, newest);
        header.max_timestamp = newest;
    }
    Ok(batch)
}
