//! What the log acknowledges after each step, taken into the account, and the order of its pointers checked.

use crate::model::{Change, Model, PartitionModel, TopicModel};
use crate::replica::collect_truncation;
use crate::sim::{Sim, directory};
use headwater_log::{AckPoint, Log, Loss, Partition, Role, Settled, TopicId};
use std::collections::BTreeMap;

impl Sim {
    /// Notes what the log acknowledges now, and checks its pointers.
    pub(crate) fn collect(&mut self) {
        let log = self.log().clone();
        let Model { topics, pending, graves, .. } = &mut self.model;
        pending.retain(|(cycle, change)| {
            // A trim is durable when the cycle after it has ended.
            let done = match change {
                Change::Trimmed(id, partition, _) => {
                    let topic = log.topics().into_iter().find(|topic| topic.id() == *id);
                    topic.is_some_and(|t| cycles(&log, &t.partitions()[*partition]) > *cycle)
                }
                _ => matches!(log.committed(*cycle), Ok(true)),
            };
            if !done {
                return true;
            }
            match change {
                Change::Created(id, count) | Change::Grown(id, count) => {
                    if let Some(topic) = by_id(topics, graves, *id) {
                        topic.created = true;
                        let new = topic.partitions.iter_mut().take(*count);
                        new.for_each(|partition| partition.created = true);
                    }
                }
                Change::Altered(id, settings) => {
                    if let Some(topic) = by_id(topics, graves, *id)
                        && let Some(at) = topic.settings.iter().position(|s| s == settings)
                    {
                        topic.settings.drain(..at);
                    }
                }
                Change::Deleted(id) => {
                    if let Some(grave) = graves.iter_mut().find(|(_, topic, _)| topic.id == *id) {
                        grave.2 = true;
                    }
                }
                Change::Trimmed(id, partition, before) => {
                    if let Some((_, topic)) = topics.iter_mut().find(|(_, t)| t.id == *id) {
                        let model = &mut topic.partitions[*partition];
                        model.start_acked = model.start_acked.max(*before);
                    }
                }
            }
            false
        });
        for (name, model) in topics {
            let Some(topic) = log.topic(name) else { panic!("topic {name} is gone") };
            assert_eq!(topic.id(), model.id);
            let durable = !model.memory;
            for (partition, model) in topic.partitions().iter().zip(&mut model.partitions) {
                self.refused += collect_partition(partition, model, durable);
            }
        }
    }
}

/// Commit cycles of the directory that holds a partition.
pub(crate) fn cycles(log: &Log, partition: &Partition) -> u64 {
    directory(log, partition).cycles
}

/// A topic may be deleted, and made again under its name, before its creation is committed.
fn by_id<'a>(
    topics: &'a mut BTreeMap<String, TopicModel>,
    graves: &'a mut [(String, TopicModel, bool)],
    id: TopicId,
) -> Option<&'a mut TopicModel> {
    let live = topics.values_mut().find(|topic| topic.id == id);
    live.or_else(|| graves.iter_mut().map(|(_, topic, _)| topic).find(|topic| topic.id == id))
}

fn collect_partition(partition: &Partition, model: &mut PartitionModel, durable: bool) -> usize {
    if partition.missing().is_some() {
        return 0;
    }
    let name = format!("{}-{}", partition.topic(), partition.id());
    let mut lost = 0;
    collect_truncation(partition, model);
    model.replicated_acked |= partition.role() == Role::Leader;
    model.pending.retain(|(position, end)| {
        match partition.settled(AckPoint::HighWatermark, *position) {
            Settled::Passed => model.shown_end = model.shown_end.max(*end),
            // The high watermark of a replica moves by itself.
            Settled::Waiting | Settled::Lost(Loss::Fenced) => {}
            Settled::Lost(Loss::Truncated) => return false,
            Settled::Lost(_) => {
                lost += 1;
                return false;
            }
        }
        match partition.settled(AckPoint::Synced, *position) {
            Settled::Passed => {
                model.acked_end = model.acked_end.max(*end);
                false
            }
            Settled::Waiting => true,
            Settled::Lost(Loss::Fenced | Loss::Truncated) => false,
            Settled::Lost(_) => {
                lost += 1;
                false
            }
        }
    });
    let p = partition.positions();
    assert!(p.log_start <= p.high_watermark && p.high_watermark <= p.log_end, "{name}: {p:?}");
    assert!(p.log_start <= p.last_stable && p.last_stable <= p.high_watermark, "{name}: {p:?}");
    assert!(p.synced <= p.written && p.written <= p.log_end, "{name}: {p:?}");
    assert!(!durable || p.high_watermark <= p.synced, "{name}: {p:?}");
    assert!(p.high_watermark.get() >= model.shown_end, "{name}: {p:?} took back {model:?}");
    assert!(p.log_end.get() <= model.end, "{name}: {p:?} has what nobody appended");
    model.cut(p.log_end.get());
    assert!(p.log_start.get() <= model.start_max, "{name}: {p:?} lost its start");
    model.shown_end = p.high_watermark.get();
    model.watermark_max = model.watermark_max.max(model.shown_end);
    // Offline or not, what is shown as synced is acknowledged.
    model.acked_end = model.acked_end.max(p.synced.get()).min(model.truncating.unwrap_or(i64::MAX));
    lost
}
