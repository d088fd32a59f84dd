//! Offsets whose records a repair found lost: a reader meets them, and never passes over them in silence.
//!
//! Elsewhere missing offsets show by themselves, as a segment that ends before the next one begins. In compacted segments they
//! would look like what compaction took.
//!
//! Invariant: a range lies between the log start and the log end, and is forgotten with the part of the log that it lies in.
//! Neighbours: the catalog keeps them, `inspect::mend` finds them, `read` asks.

use super::{Partition, ReadError, ReadLimit};
use crate::Offset;
use crate::batch::BatchError;

impl Partition {
    /// Ranges of offsets, first and end.
    pub(crate) fn lost(&self) -> Vec<(i64, i64)> {
        self.lost.read().clone()
    }

    /// Whether all of these offsets are known to be lost.
    pub(crate) fn is_lost(&self, first: i64, end: i64) -> bool {
        self.lost.read().iter().any(|(from, to)| *from <= first && end <= *to)
    }

    /// Ranges of offsets that readers could not read, and no repair has judged yet.
    pub(crate) fn known_damage(&self) -> Vec<(i64, i64)> {
        let positions = self.positions();
        self.shared.damage.within(self.handle, positions.log_start.get(), positions.log_end.get())
    }

    /// Somebody who does not read through the reader met damage at this offset: a reader says how far it goes, and notes it. One
    /// that finds nothing wrong was not asked to look inside the batch.
    pub(crate) fn note_damage_at(&self, offset: i64, error: &impl std::fmt::Display) {
        let Some(first) = Offset::new(offset) else { return };
        if self.read(first, 1, ReadLimit::Written).is_ok() {
            let what = || format!("{self:?} at offset {offset}: {error}");
            self.shared.damage.note(self.handle, offset, offset.saturating_add(1), what);
        }
    }

    /// Where a read that begins at `from` must end so as not to pass what is lost.
    pub(super) fn before_lost(&self, from: Offset, end: Offset) -> Result<Offset, ReadError> {
        let lost = self.lost.read();
        let Some((first, next)) = lost.iter().find(|(_, next)| from.get() < *next) else {
            return Ok(end);
        };
        if *first > from.get() {
            return Ok(end.min(Offset::new(*first).unwrap_or(end)));
        }
        let file = self.folder().display().to_string();
        let (reason, next_good) = (BatchError::Quarantined, Offset::new(*next));
        Err(ReadError::Damaged { file, byte: 0, reason, first: from, next_good })
    }

    /// Forgets what lies above `end`, where the log was cut.
    pub(super) fn cut_lost(&self, end: Offset) {
        self.lost.write().retain_mut(|(first, to)| {
            *to = end.get().min(*to);
            *first < *to
        });
    }

    /// What of it the catalog should know.
    pub(super) fn lost_between(&self, start: Offset, end: Offset) -> Vec<(i64, i64)> {
        let lost = self.lost();
        lost.into_iter().filter(|(_, to)| *to > start.get() && *to <= end.get()).collect()
    }
}
