//! A partition as one replica of several: who leads it, batches as the leader placed them, truncation, and a high watermark
//! that is apart from the durable position (KIP-101, KIP-279).
//!
//! A partition is alone until its first leadership: its high watermark follows its own synced (or written) position. From then
//! on, restarts included, the high watermark moves only by [`Partition::advance_high_watermark`], and clients append only where
//! it leads. Whoever decides on leaders, and the network, are elsewhere.
//!
//! A leadership counts once its journal frame (kind 6) is synced, so no record of an epoch is acknowledged or shown that a
//! restart could give out again. A follower stands back at once. A truncation is a journal frame (kind 5) before anything is
//! cut; the committer carries it out when its cycle is synced, before the next mark, so that a catalog either describes the
//! partition after it (and says in which cycle it was) or leaves it to be replayed. Nothing is appended meanwhile; in a
//! `memory` topic, whose files are scanned at a start, not before a catalog describes the cut.
//!
//! Where the leader's log has a hole, which compaction left, a follower puts batches without records, as compaction leaves them too:
//! every offset below the log end belongs to a batch, in the journal as in the files, so that what a damaged cycle took is never
//! passed for a hole. The next compaction here drops them.
//!
//! A truncation never goes below the high watermark. So no reader loses what it was shown, and neither the log start nor a
//! hold is ever beyond the end: an uplink reads below the high watermark.
//!
//! | byte | of a leadership in the journal |
//! |---|---|
//! | 0 | epoch i32 |
//! | 4 | zero u32 |
//! | 8 | high watermark i64, at least |
//!
//! Invariant: epochs never go back, nor does the high watermark while the process runs.
//! Neighbours: `commit` journals and calls back, `cut` cuts the files, `epochs` says where replicas part, `recovery` replays.

use super::state::State;
use super::{AckPoint, AppendError, Appended, Condition, Loss, Partition, ReadError};
use crate::batch::{self, BatchError, BatchHeader};
use crate::encoding::{Fields, Put};
use crate::shared::PartitionControl;
use crate::{LeaderEpoch, Offset, Position};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Bytes of a [`Leadership`] in the journal.
pub(crate) const LEADERSHIP_BYTES: usize = 16;

/// The largest hole between two batches that is believed: sixty-four times what one batch can span.
const HOLE_MAX: i64 = 64 * i32::MAX as i64;

/// What a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// There are no others: what is durable here is visible.
    Alone = 0,
    /// Clients append here.
    Leader = 1,
    /// Batches come from the leader, or it is not known yet who leads.
    Follower = 2,
}

/// What outlives a restart of a replica, beside its records. After one it leads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) high_watermark: Offset,
}

impl Leadership {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_i32(self.epoch.get());
        out.put_u32(0);
        out.put_i64(self.high_watermark.get());
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let epoch = LeaderEpoch::new(f.i32()?)?;
        f.u32().filter(|zero| *zero == 0)?;
        Some(Self { epoch, high_watermark: Offset::new(f.i64()?)? })
    }
}

/// What a partition's state holds for its replicas; all of it under the state's lock.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// The epoch it leads once that is synced.
    claimed: Option<LeaderEpoch>,
    /// A truncation to here is on its way: nothing is appended, and nothing goes into a cycle.
    pub(super) truncating: Option<Offset>,
    /// The cycle of the last truncation carried out; 0 for none since the start.
    pub(super) truncated_in: u64,
    /// That truncation of a `memory` topic waits for a catalog that describes it.
    pub(super) uncovered: bool,
    /// The journal, or the catalog, knows that this is a replica.
    known: bool,
    /// The high watermark that it knows.
    journalled: Offset,
}

impl Replica {
    /// Whether nothing may go into a cycle now: while it is truncated, and before a restart would know it for a replica, whose
    /// records are not shown because they are here.
    pub(super) fn holds_back(&self) -> bool {
        self.truncating.is_some() || !self.known
    }
}

/// Why a replica refuses. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// A newer epoch is known here (Kafka's FENCED_LEADER_EPOCH): whoever asks is behind.
    #[error("epoch {found} is not above {current}")]
    Fenced {
        /// Known here.
        current: LeaderEpoch,
        /// Asked for, or in the batch.
        found: LeaderEpoch,
    },
    /// Only a follower does this.
    #[error("this replica is not a follower")]
    NotFollower,
    /// A truncation is on its way: wait for [`Partition::is_truncating`] to end.
    #[error("the log is being truncated")]
    Truncating,
    /// The batch begins below the log end, or so far above it that no compaction can have left that: fetch from the log end.
    #[error("a batch at offset {found} does not follow a log that ends at {expected}")]
    NotNext {
        /// The log end.
        expected: Offset,
        /// The batch's base offset.
        found: Offset,
    },
    /// Records below the high watermark are never given up.
    #[error("offset {offset} is below the high watermark {high_watermark}")]
    BelowHighWatermark {
        /// Where the log would end.
        offset: Offset,
        /// The high watermark.
        high_watermark: Offset,
    },
    /// As for any append.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The batch to cut at could not be found.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<BatchError> for ReplicaError {
    fn from(error: BatchError) -> Self {
        Self::Append(error.into())
    }
}

/// What [`Partition::truncate_to_epoch`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Where the log ends, or will once the truncation is synced.
    pub end: Offset,
    /// Whether all below it is known to be the leader's too. If not: ask it for the end of [`Truncated::epoch`], once more.
    pub complete: bool,
    /// The newest epoch in what is left, if anything is.
    pub epoch: Option<LeaderEpoch>,
}

impl Partition {
    /// What this replica is now. A leader only once its epoch is synced.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Acquire) {
            1 => Role::Leader,
            2 => Role::Follower,
            _ => Role::Alone,
        }
    }

    pub(crate) fn is_replicated(&self) -> bool {
        self.role() != Role::Alone
    }

    pub(super) fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::Release);
    }

    /// Takes over the leadership of `epoch`, which must be newer than every epoch known here: after a restart too, since what
    /// was appended in it may be lost. In force when the next cycle is synced; until then appends are refused.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing changed then.
    pub fn become_leader(&self, epoch: LeaderEpoch) -> Result<(), ReplicaError> {
        let mut state = self.state.lock();
        let current = self.epoch();
        if epoch == current && (self.role() == Role::Leader || state.replica.claimed.is_some()) {
            return Ok(());
        }
        if epoch <= current {
            return Err(ReplicaError::Fenced { current, found: epoch });
        }
        if state.replica.truncating.is_some() {
            return Err(ReplicaError::Truncating);
        }
        self.enter(&mut state, epoch);
        state.replica.claimed = Some(epoch);
        Ok(())
    }

    /// Follows the leader of `epoch` from now on: clients' appends are refused at once. The newest epoch known here is fine
    /// as long as this replica does not lead in it.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing changed then.
    pub fn become_follower(&self, epoch: LeaderEpoch) -> Result<(), ReplicaError> {
        let mut state = self.state.lock();
        let current = self.epoch();
        let leads = self.role() != Role::Follower || state.replica.claimed.is_some();
        if epoch < current || (epoch == current && leads) {
            return Err(ReplicaError::Fenced { current, found: epoch });
        }
        if epoch > current {
            self.enter(&mut state, epoch);
        }
        Ok(())
    }

    /// Whether it may take the leader's batches, or be cut back to them, now.
    fn check_follows(&self, state: &State) -> Result<(), ReplicaError> {
        if self.role() != Role::Follower || state.replica.claimed.is_some() {
            return Err(ReplicaError::NotFollower);
        }
        if state.replica.truncating.is_some() {
            return Err(ReplicaError::Truncating);
        }
        Ok(())
    }

    /// Begins `epoch`, leading in nothing.
    fn enter(&self, state: &mut State, epoch: LeaderEpoch) {
        // What is open belongs to the epoch it was appended in.
        state.seal(self.epoch());
        state.replica.claimed = None;
        self.set_role(Role::Follower);
        self.points.epoch.store(epoch.get(), Ordering::Release);
        self.journal_leadership();
        // Those who waited for the old leadership are told.
        self.shared.notify();
    }

    /// Leads no more, in the same epoch: what it appended and did not commit is lost. With a later one it may lead again.
    pub(super) fn resign(&self, state: &mut State) {
        state.replica.claimed = None;
        self.set_role(Role::Follower);
    }

    /// Queues what is known now for the journal.
    fn journal_leadership(&self) {
        let leadership = Leadership { epoch: self.epoch(), high_watermark: self.high_watermark() };
        self.control(PartitionControl::Leadership(leadership));
    }

    /// Queues a control entry for the next cycle.
    pub(super) fn control(&self, control: PartitionControl) {
        if let Some(me) = self.me.upgrade() {
            self.shared.controls.lock().partitions.push_back((me, control));
        }
        self.shared.queue.wake();
    }

    /// A leadership's cycle is synced.
    pub(crate) fn note_leadership(&self, leadership: &Leadership) {
        let mut state = self.state.lock();
        state.replica.journalled = state.replica.journalled.max(leadership.high_watermark);
        if state.replica.claimed == Some(leadership.epoch) {
            state.replica.claimed = None;
            self.set_role(Role::Leader);
        }
        if !std::mem::replace(&mut state.replica.known, true) {
            drop(state);
            self.requeue();
        }
    }

    /// Journals the high watermark if it has moved since: Kafka's `replication-offset-checkpoint`, every few seconds.
    pub(crate) fn journal_high_watermark(&self) {
        if !self.is_replicated() || self.condition() == Condition::Deleted {
            return;
        }
        let state = self.state.lock();
        if self.high_watermark() > state.replica.journalled {
            self.journal_leadership();
        }
    }

    /// Moves the high watermark up to `offset`, as far as the records are committed here, never back; returns where it is.
    /// A partition that is alone moves its own. Does not wait.
    pub fn advance_high_watermark(&self, offset: Offset) -> Offset {
        if self.is_replicated() {
            let state = self.state.lock();
            let limit = state.replica.truncating.unwrap_or(state.committed);
            // A `memory` topic's are committed a moment before they are in the kernel.
            let written = self.points.written.load(Ordering::Acquire);
            let to = offset.min(state.committed).min(limit).get().min(written);
            if self.points.high_watermark.fetch_max(to, Ordering::AcqRel) < to {
                drop(state);
                self.shared.notify();
            }
        }
        self.high_watermark()
    }

    /// Appends one batch as the leader placed it: offsets and epoch stay. It begins where the log ends, or behind a hole there. It
    /// is committed as any other.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing is stored then.
    pub fn append_as_follower(&self, batch: Bytes) -> Result<Appended, ReplicaError> {
        let limit_bytes = self.shared.journal_batch_bytes_max;
        if batch.len() > limit_bytes {
            return Err(AppendError::TooLarge { size_bytes: batch.len(), limit_bytes }.into());
        }
        let header = batch::verify(&batch)?;
        if header.size_bytes() != batch.len() {
            return Err(BatchError::Field("batchLength").into());
        }
        let epoch = LeaderEpoch::new(header.partition_leader_epoch)
            .ok_or(BatchError::Field("partitionLeaderEpoch"))?;
        let mut state = self.state.lock();
        self.admit(&state)?;
        self.check_follows(&state)?;
        let base = Offset::new(header.base_offset).unwrap_or_default();
        let hole = base.get() - state.end.get();
        if !(0..=HOLE_MAX).contains(&hole) {
            return Err(ReplicaError::NotNext { expected: state.end, found: base });
        }
        if let Some(current) = state.epochs.last().filter(|last| *last > epoch) {
            return Err(ReplicaError::Fenced { current, found: epoch });
        }
        if epoch > self.epoch() {
            // It cannot come from the leader that this replica was told of.
            return Err(ReplicaError::Fenced { current: self.epoch(), found: epoch });
        }
        let before = state.waiting_bytes();
        self.fill(&mut state, base, epoch)?;
        self.note_batch(&mut state, &header, batch);
        let last = Offset::new(header.last_offset()).unwrap_or(base);
        self.appended(state, before);
        let at = |offset| Position { epoch, offset };
        Ok(Appended { base: at(base), last: at(last), duplicate: false })
    }

    /// Takes the offsets up to `base` as compacted away at the leader. Their epoch is that of what is before them: where the next
    /// one began is known from its first batch only, as on Kafka's followers.
    fn fill(&self, state: &mut State, base: Offset, epoch: LeaderEpoch) -> Result<(), BatchError> {
        let epoch = state.epochs.last().unwrap_or(epoch);
        // Each round takes what one batch can, and `HOLE_MAX` is a few of them.
        while state.end < base {
            let end = base.min(state.end.plus(i32::MAX.unsigned_abs()));
            let last = Offset::new(end.get() - 1).unwrap_or_default();
            let empty = batch::empty(state.end, last, epoch);
            let empty = empty.ok_or(BatchError::Field("baseOffset"))?;
            let header = BatchHeader::parse(&empty)?;
            self.note_batch(state, &header, empty);
        }
        Ok(())
    }

    /// Takes the log back to `offset`, or to the beginning of the batch that has it; returns where it will end. Journalled
    /// first, carried out when that is synced: see [`Partition::is_truncating`]. May read a segment.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing changed then.
    pub fn truncate_to(&self, offset: Offset) -> Result<Offset, ReplicaError> {
        let to = self.batch_start(offset)?;
        let mut state = self.state.lock();
        self.admit(&state)?;
        self.check_follows(&state)?;
        let high_watermark = self.high_watermark();
        if to < high_watermark {
            return Err(ReplicaError::BelowHighWatermark { offset: to, high_watermark });
        }
        if to >= state.end {
            return Ok(state.end);
        }
        state.replica.truncating = Some(to);
        self.control(PartitionControl::Truncate(to));
        Ok(to)
    }

    /// One step of a follower towards its leader's log: the leader was asked for the end of this replica's newest epoch and
    /// answered with the largest epoch it has up to there, and its end ([`Partition::end_of_epoch`] there). Cuts what cannot
    /// be common to both (KIP-101; KIP-279 for leaders that changed quickly).
    ///
    /// # Errors
    /// As [`Partition::truncate_to`].
    pub fn truncate_to_epoch(
        &self,
        leader_epoch: LeaderEpoch,
        leader_end: Offset,
    ) -> Result<Truncated, ReplicaError> {
        let here = {
            let state = self.state.lock();
            state.epochs.end_of(leader_epoch, self.log_start(), state.end)
        };
        let (to, complete) = match here {
            Some((epoch, end)) if epoch == leader_epoch => (end.min(leader_end), true),
            // An epoch that is not known here: what is above the one before it is not the leader's.
            Some((_, end)) => (end, false),
            None => (leader_end, true),
        };
        let end = self.truncate_to(to)?;
        let below = Offset::new(end.get() - 1);
        let epoch = below.and_then(|last| self.state.lock().epochs.of(last));
        Ok(Truncated { end, complete, epoch })
    }

    /// Whether a truncation is on its way. [`crate::Log::moved`] tells when to look again.
    #[must_use]
    pub fn is_truncating(&self) -> bool {
        self.state.lock().replica.truncating.is_some()
    }

    /// Why a position that has not passed never will, if this replica does not lead: whether it comes below the high watermark
    /// is decided elsewhere, and what is not in the log any more was never committed.
    pub(super) fn fenced(&self, point: AckPoint, position: Position) -> Option<Loss> {
        let there = position.offset.get() < self.points.log_end.load(Ordering::Acquire);
        let waits = there && point != AckPoint::HighWatermark;
        (self.role() == Role::Follower && !waits).then_some(Loss::Fenced)
    }

    /// What the catalog has of it: `None` for a partition that is alone.
    pub(super) fn leadership(&self) -> Option<Leadership> {
        let (epoch, high_watermark) = (self.epoch(), self.high_watermark());
        self.is_replicated().then_some(Leadership { epoch, high_watermark })
    }

    /// The cycle of the last truncation that what is here has behind it.
    pub(crate) fn truncated_in(&self) -> u64 {
        self.state.lock().replica.truncated_in
    }

    /// Takes over what the catalog or the journal has. The log end is put right later, by `publish_replayed`.
    pub(crate) fn replay_leadership(&self, leadership: &Leadership) {
        let high_watermark = leadership.high_watermark.get();
        if self.is_replicated() {
            self.points.high_watermark.fetch_max(high_watermark, Ordering::AcqRel);
        } else {
            self.points.high_watermark.store(high_watermark, Ordering::Release);
        }
        self.set_role(Role::Follower);
        self.points.epoch.fetch_max(leadership.epoch.get(), Ordering::AcqRel);
        let mut state = self.state.lock();
        state.replica.known = true;
        state.replica.journalled = state.replica.journalled.max(leadership.high_watermark);
    }
}
