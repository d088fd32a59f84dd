//! What is known of transactions while a pass walks the log (Kafka's `CleanedTransactionMetadata`).
//!
//! Records of an aborted transaction go at once. Its marker goes when none of them was met any more, and a commit's marker when
//! no record of its transaction is left; both only when the delete horizon they get then is over, so that a reader who is in
//! the middle of the transaction still meets its end.
//!
//! Invariant: batches are noted in offset order, each once per walk. Neighbours: `pass` walks, `rewrite` carries out.

use crate::AbortedTransaction;
use crate::batch::BatchHeader;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The state of the walk.
#[derive(Debug, Default, Clone)]
pub(super) struct Transactions {
    /// Not yet reached, by first offset.
    ahead: VecDeque<AbortedTransaction>,
    /// Being walked through, by producer: whether a batch of it was met.
    aborted: BTreeMap<i64, (AbortedTransaction, bool)>,
    committed: BTreeSet<i64>,
    /// Ended, with a batch met: the transaction index of what is being written goes on naming them.
    kept: Vec<AbortedTransaction>,
}

/// What a transaction's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Commit,
    /// Of a later version, or not a transaction's.
    Other,
}

impl Transactions {
    /// For a walk over what these transactions lie in.
    pub(super) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|a| a.first);
        Self { ahead: aborted.into(), ..Self::default() }
    }

    fn reach(&mut self, offset: i64) {
        while let Some(next) = self.ahead.front().filter(|a| a.first.get() <= offset).copied() {
            self.ahead.pop_front();
            self.aborted.entry(next.producer_id).or_insert((next, false));
        }
    }

    /// Notes a batch of records; whether it may go because its transaction was aborted.
    pub(super) fn batch(&mut self, header: &BatchHeader) -> bool {
        self.reach(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, met)) => {
                *met = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Notes a control batch (`None`: its record has gone already); whether nothing is left that it is the end of.
    pub(super) fn marker(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        self.reach(header.last_offset());
        match marker {
            None => true,
            Some(Marker::Abort) => match self.aborted.remove(&header.producer_id) {
                Some((aborted, true)) => {
                    self.kept.push(aborted);
                    false
                }
                _ => true,
            },
            Some(Marker::Commit) => !self.committed.remove(&header.producer_id),
            Some(Marker::Other) => false,
        }
    }

    /// Aborted transactions whose markers were met since the last call and of which batches are left.
    pub(super) fn take_kept(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.kept)
    }
}

/// What the record of a control batch says, by its key: version i16, type i16 (0 abort, 1 commit; KIP-98).
pub(super) fn marker_of(key: Option<&[u8]>) -> Marker {
    match key.and_then(|key| key.get(2..4)) {
        Some([0, 0]) => Marker::Abort,
        Some([0, 1]) => Marker::Commit,
        _ => Marker::Other,
    }
}
