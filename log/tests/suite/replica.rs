//! Steps of a partition that is one replica of several: leaderships, batches of a leader, truncation, the high watermark.

use crate::clients::client_batch;
use crate::model::{PartitionModel, Sent};
use crate::sim::Sim;
use headwater_log::batch;
use headwater_log::{
    LeaderEpoch, Offset, Partition, Position, ReadError, ReadLimit, ReplicaError, Role,
};

/// What the account has for an offset without a record.
pub(crate) const HOLE: &[u8] = b"hole";

/// What a step does to a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Replica {
    /// It leads, in an epoch of its own.
    Lead,
    /// It follows, in a new epoch.
    Follow,
    /// A batch of the leader: of a producer, behind a hole of so many offsets.
    Fetch { hole: u32, records: usize, bytes: usize },
    /// Back to this part (of 8) between the high watermark and the end.
    Truncate { eighths: u32 },
    /// The high watermark moves by one batch, or as far as it may.
    Advance { all: bool },
}

impl Sim {
    pub(crate) fn replica(&mut self, topic: &str, partition: usize, what: Replica) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let next = target.positions().epoch.next();
        match what {
            Replica::Lead | Replica::Follow => {
                let lead = matches!(what, Replica::Lead);
                let done = match lead {
                    true => target.become_leader(next),
                    false => target.become_follower(next),
                };
                match done {
                    Ok(()) => self.part(topic, partition).replicated = true,
                    Err(error) => assert_eq!(error, ReplicaError::Truncating),
                }
            }
            Replica::Fetch { hole, records, bytes } => {
                let values = self.values(topic, partition, records, bytes);
                self.fetch(&target, topic, partition, hole, values);
            }
            Replica::Truncate { eighths } => {
                let p = target.positions();
                let room = p.log_end.get() - p.high_watermark.get();
                let offset = p.high_watermark.get() + room * i64::from(eighths) / 8;
                match target.truncate_to(Offset::new(offset).expect("not negative")) {
                    Ok(to) if target.is_truncating() => {
                        let model = self.part(topic, partition);
                        model.truncating = Some(to.get());
                        model.acked_end = model.acked_end.min(to.get());
                    }
                    Ok(to) => assert_eq!(to, p.log_end),
                    Err(error) => self.note_replica_refusal(&error),
                }
            }
            Replica::Advance { all } => {
                let p = target.positions();
                let to = match target.read(p.high_watermark, 1, ReadLimit::Written) {
                    Ok(read) if !all => read.next,
                    _ => p.log_end,
                };
                let reached = target.advance_high_watermark(to);
                assert!(reached >= p.high_watermark && reached <= p.log_end);
            }
        }
    }

    fn fetch(
        &mut self,
        target: &Partition,
        topic: &str,
        partition: usize,
        hole: u32,
        values: Vec<Vec<u8>>,
    ) {
        let sequence = self.part(topic, partition).next_sequence();
        let producer_id = 5_000;
        let mut fetched = client_batch(producer_id, sequence, &values);
        let p = target.positions();
        let base = p.log_end.plus(hole);
        let before = p.log_end.get().checked_sub(1).and_then(Offset::new);
        let before = before.and_then(|last| target.epoch_of(last)).unwrap_or(p.epoch);
        batch::place(&mut fetched, base, p.epoch);
        match target.append_as_follower(fetched.freeze()) {
            Ok(appended) => {
                assert_eq!((appended.base.offset, appended.base.epoch), (base, p.epoch));
                if hole > 0 {
                    let at = |offset| Position { epoch: before, offset };
                    let last = at(p.log_end.plus(hole - 1));
                    let holes = vec![HOLE.to_vec(); hole as usize];
                    self.note(topic, partition, at(p.log_end), last, &holes);
                }
                self.note(topic, partition, appended.base, appended.last, &values);
                let base = appended.base.offset.get();
                let sent = Sent { producer_id, sequence, base, values, cut: false };
                self.part(topic, partition).sent.push(sent);
            }
            Err(error) => self.note_replica_refusal(&error),
        }
    }

    fn note_replica_refusal(&mut self, error: &ReplicaError) {
        match error {
            ReplicaError::Append(error) => self.note_refusal(error),
            ReplicaError::Truncating | ReplicaError::NotFollower => {}
            // The place of a cut may have to be read from a disk that is gone.
            ReplicaError::Read(ReadError::Io { .. }) => {
                assert!(self.disk.is_stopped() || self.disk.has_failed(), "{error}");
            }
            // The batch to cut at begins below the high watermark.
            ReplicaError::BelowHighWatermark { .. } => {}
            other => panic!("{other}"),
        }
    }

    /// Leads again after a restart, so that it can be used.
    pub(crate) fn lead_again(&mut self, topic: &str, partition: usize) {
        self.replica(topic, partition, Replica::Lead);
    }
}

/// Notes a truncation that has been carried out.
pub(crate) fn collect_truncation(partition: &Partition, model: &mut PartitionModel) {
    if let Some(to) = model.truncating
        && !partition.is_truncating()
    {
        let end = partition.positions().log_end.get();
        assert!(end <= to, "{}-{} is cut to {to}", partition.topic(), partition.id());
        model.truncated(to);
    }
}

/// A replica after a restart leads nothing, and shows nothing that was not shown before.
pub(crate) fn check_restarted(partition: &Partition, model: &PartitionModel) {
    let name = format!("{}-{}", partition.topic(), partition.id());
    let p = partition.positions();
    assert_eq!(partition.role(), Role::Follower, "{name}");
    assert_eq!((p.synced, p.written), (p.log_end, p.log_end), "{name}");
    assert!(p.high_watermark.get() <= model.watermark_max, "{name}: {p:?}");
    assert!(p.high_watermark <= p.log_end && p.log_start <= p.high_watermark, "{name}: {p:?}");
    let last = p.log_end.get().checked_sub(1).and_then(Offset::new);
    let last = last.and_then(|last| partition.epoch_of(last));
    assert!(last.is_none_or(|last: LeaderEpoch| last <= p.epoch), "{name}: {last:?}, {p:?}");
}
