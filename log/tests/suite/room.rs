//! Room: a disk that has an end, what retention may take, and uplinks' holds, which it may not pass.

use crate::sim::Sim;
use headwater_log::Offset;
use headwater_log::metadata::TopicSettings;

impl Sim {
    /// Limits the disk to what it holds now and so much more.
    pub(crate) fn limit(&mut self, kib: Option<u32>) {
        let used = self.disk.used_bytes();
        self.disk.set_capacity(kib.map(|kib| used + u64::from(kib) * 1024));
        self.tight = kib.is_some();
    }

    pub(crate) fn hold(&mut self, topic: &str, partition: usize, eighths: u32) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let hold = target.hold("uplink");
        let from = hold.checkpointed().get();
        let room = (target.positions().high_watermark.get() - from).max(0);
        let to = from + room * i64::from(eighths) / 8;
        hold.checkpoint(Offset::new(to).expect("not negative"));
        self.part(topic, partition).held = Some(to);
    }

    /// What an uplink does at a start, before anything can be deleted.
    pub(crate) fn hold_again(&self) {
        // A topic whose deletion was not acknowledged may be back.
        let graves = self.model.graves.iter().map(|(name, topic, _)| (name, topic));
        for (name, topic) in self.model.topics.iter().chain(graves) {
            let there = self.log().topic(name).filter(|there| there.id() == topic.id);
            let partitions = there.iter().flat_map(|there| there.partitions());
            for (partition, model) in partitions.zip(&topic.partitions) {
                if let Some(held) = model.held {
                    partition.hold("uplink").checkpoint(Offset::new(held).expect("not negative"));
                }
            }
        }
    }

    /// Retention may take whatever is there now from topics that have a limit.
    pub(crate) fn allow_retention(&mut self) {
        for topic in self.model.topics.values_mut() {
            let limited =
                |s: &TopicSettings| s.retention_ms.is_some() || s.retention_bytes.is_some();
            let scarce = self.options.max_bytes.is_some() || self.options.min_free.is_some();
            // Never of a topic that only compacts.
            let deletes = topic.settings.iter().any(|s| s.cleanup.deletes());
            if deletes && (scarce || topic.settings.iter().any(limited)) {
                for partition in &mut topic.partitions {
                    // Never what an uplink still owes.
                    let limit = partition.end.min(partition.held.unwrap_or(i64::MAX));
                    partition.start_max = partition.start_max.max(limit);
                }
            }
        }
    }
}
