//! What must be so after a restart, whatever happened before it.

use crate::clients::client_batch;
use crate::compaction::check_ends;
use crate::lookup::check_lookups;
use crate::model::{Entry, PartitionModel, TopicModel};
use crate::replica::{Replica, check_restarted};
use crate::sim::{End, Sim, directory, read_all};
use crate::step::Step;
use crate::transactions::check_committed;
use headwater_log::metadata::Durability;
use headwater_log::{LeaderEpoch, Offset, Partition, Role, Topic};

impl Sim {
    /// Opens the log after a crash and checks it against the account; then goes on with it for a while.
    /// Afterwards the account is what was found.
    pub(crate) fn reopen_and_check(&mut self, end: End) {
        self.verify_is_well();
        let recovery = self.open().expect("the log opens again");
        assert!(!recovery.created || self.model.topics.values().all(|topic| !topic.created));
        self.check(end);
        self.go_on();
    }

    /// Checks an opened log against the account.
    pub(crate) fn check(&mut self, end: End) {
        self.settle_metadata();
        let log = self.log().clone();
        let mut epoch = self.model.epoch;
        for (name, model) in &mut self.model.topics {
            let topic = log.topic(name).expect("settled above");
            check_topic(&topic, model, end, self.model.epoch, &mut epoch);
            // A start syncs everything that is there: from here on only today's durability counts.
            let all_here = topic.partitions().iter().all(|p| p.missing().is_none());
            model.memory &= !all_here || topic.settings().durability == Durability::Memory;
        }
        self.model.epoch = epoch;
    }

    /// Decides which changes of metadata, not acknowledged before the crash, have happened.
    fn settle_metadata(&mut self) {
        let log = self.log().clone();
        let model = &mut self.model;
        // What of them happened is seen below; what did not is forgotten.
        model.pending.clear();
        let mut gone = vec![];
        for (name, topic) in &model.topics {
            if log.topic(name).is_none_or(|there| there.id() != topic.id) {
                assert!(!topic.created, "{name} was created for good and is gone");
                gone.push(name.clone());
            }
        }
        for name in gone {
            model.topics.remove(&name);
        }
        for (name, topic, deleted) in std::mem::take(&mut model.graves) {
            if log.topic(&name).is_some_and(|there| there.id() == topic.id) {
                assert!(!deleted, "{name} was deleted for good and is back");
                model.topics.insert(name, topic);
            } else {
                model.graves.push((name, topic, true));
            }
        }
        for there in log.topics() {
            let name = there.name().as_str();
            assert!(
                there.name().is_internal() || model.topics.contains_key(name),
                "{name} came from nowhere"
            );
        }
        for (name, topic) in &mut model.topics {
            let there = log.topic(name).expect("settled above");
            topic.created = true;
            assert!(topic.settings.contains(there.settings()), "{name}: {:?}", there.settings());
            topic.settings = vec![there.settings().clone()];
            let count = there.partitions().len();
            assert!(count <= topic.partitions.len(), "{name} has {count} partitions");
            for lost in topic.partitions.drain(count..) {
                assert!(!lost.created, "{name} lost a partition");
            }
            topic.partitions.iter_mut().for_each(|partition| partition.created = true);
        }
    }

    /// Uses the log after a restart: repeats are known, new records follow on, everything is read.
    fn go_on(&mut self) {
        let partitions: Vec<(&'static str, usize)> = self
            .model
            .topics
            .iter()
            .flat_map(|(name, topic)| (0..topic.partitions.len()).map(|i| (leak(name), i)))
            .collect();
        for &(topic, partition) in &partitions {
            if self.part(topic, partition).replicated {
                self.lead_again(topic, partition);
            }
        }
        self.step(&Step::Commit);
        for &(topic, partition) in &partitions {
            let target = self.partition(topic, partition).expect("checked");
            if directory(self.log(), &target).offline.is_some() || target.role() == Role::Follower {
                continue;
            }
            let start = target.positions().log_start.get();
            if let Some(sent) = self.part(topic, partition).last_sent().cloned()
                && sent.base >= start
            {
                let batch = client_batch(sent.producer_id, sent.sequence, &sent.values);
                let again = target.append_batch(batch);
                if !self.is_keyless(topic, &sent.values, &again) {
                    let again = again.expect("a repeat");
                    assert!(again.duplicate, "{topic}-{partition}: {sent:?} was stored again");
                    assert_eq!(again.base.offset.get(), sent.base);
                }
            }
            self.step(&Step::Produce { topic, partition, records: 2, bytes: 40 });
            self.step(&Step::Append { topic, partition, records: 1, bytes: 40 });
        }
        self.step(&Step::Commit);
        for (topic, partition) in partitions {
            let advance = Step::Replica { topic, partition, what: Replica::Advance { all: true } };
            self.step(&advance);
            let target = self.partition(topic, partition).expect("checked");
            if self.disk_is_well() && directory(self.log(), &target).offline.is_none() {
                let model = self.part(topic, partition);
                assert_eq!(model.shown_end, model.end, "{topic}-{partition} commits again");
                let (start, end) = (target.positions().log_start.get(), model.end);
                check_records(&target, model, start, end);
            }
        }
    }

    fn disk_is_well(&self) -> bool {
        let stats = self.log().stats();
        stats.offline.is_none() && !stats.disk_full && !self.disk.is_stopped()
    }
}

fn check_topic(topic: &Topic, model: &mut TopicModel, end: End, last_epoch: i32, epoch: &mut i32) {
    let memory = model.memory;
    for (partition, model) in topic.partitions().iter().zip(&mut model.partitions) {
        let name = format!("{}-{}", topic.name(), partition.id());
        if partition.missing().is_some() {
            // What it owes is asked for when its directory is back.
            model.pending.clear();
            if memory && end == End::Power {
                // Its power went too.
                model.shown_end = model.shown_end.min(model.acked_end);
            }
            continue;
        }
        let p = partition.positions();
        assert!(model.replicated || partition.role() == Role::Alone, "{name}");
        assert!(!model.replicated_acked || partition.role() != Role::Alone, "{name}");
        model.replicated = partition.role() != Role::Alone;
        model.replicated_acked = model.replicated;
        let owed = match (memory, end) {
            (false, _) | (true, End::Kill) => model.acked_end.max(model.shown_end),
            (true, End::Power) => model.acked_end,
        };
        let owed = owed.min(model.truncating.unwrap_or(i64::MAX));
        assert!(p.log_end.get() >= owed, "{name}: {owed} was owed after {end:?}, {p:?} is there");
        assert!(p.log_end.get() <= model.history.len() as i64, "{name}: {p:?} is too much");
        assert!(
            p.log_start.get() >= model.start_acked,
            "{name}: {p:?}, start {}",
            model.start_acked
        );
        assert!(p.log_start.get() <= model.start_max, "{name}: {p:?}, start {}", model.start_max);
        if model.replicated {
            check_restarted(partition, model);
        } else {
            let ends = (p.high_watermark, p.synced, p.written);
            assert_eq!(ends, (p.log_end, p.log_end, p.log_end), "{name}");
            assert!(p.epoch.get() > last_epoch, "{name}: epoch {} after {last_epoch}", p.epoch);
            *epoch = (*epoch).max(p.epoch.get());
        }
        let (start, end) = (p.log_start.get(), p.log_end.get());
        let found = check_records(partition, model, start, end);
        check_epochs(partition, &found);
        check_lookups(partition).expect("lookups of what can be read");
        model.restart(&found, start, end);
        model.shown_end = p.high_watermark.get();
        check_committed(partition, model).unwrap_or_else(|e| panic!("{name}: {e}"));
        model.watermark_max = model.watermark_max.max(model.shown_end);
    }
}

/// Everything from `start` to `end` is there, but for what compaction may have taken, and is what was appended.
fn check_records(
    partition: &Partition,
    model: &PartitionModel,
    start: i64,
    end: i64,
) -> Vec<(i64, Entry)> {
    let found = read_all(partition);
    check_present(partition, model, &found, start, end);
    found
}

/// [`check_records`] of what was read.
pub(crate) fn check_present(
    partition: &Partition,
    model: &PartitionModel,
    found: &[(i64, Entry)],
    start: i64,
    end: i64,
) {
    let name = format!("{}-{}", partition.topic(), partition.id());
    let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
    let inside = offsets.iter().all(|offset| (start..end).contains(offset));
    assert!(inside && offsets.is_sorted_by(|a, b| a < b), "{name}: {offsets:?} in {start}..{end}");
    for gone in (start..end).filter(|offset| offsets.binary_search(offset).is_err()) {
        let was = String::from_utf8_lossy(model.text(gone));
        let may_be = model.gone.contains(&gone) || model.was_hole(gone);
        assert!(may_be, "{name}: offset {gone} of {start}..{end} is gone: {was}");
    }
    check_ends(&name, model, found, end);
    for (offset, entry) in found {
        let candidates = &model.history[*offset as usize];
        let known = if *offset < model.acked_end {
            candidates.last() == Some(entry)
        } else {
            candidates.contains(entry)
        };
        assert!(known, "{name}: offset {offset} holds {}, not {}", show(entry), shows(candidates));
    }
}

/// Epochs rise with offsets, and the log can say where each ends (KIP-101).
fn check_epochs(partition: &Partition, found: &[(i64, Entry)]) {
    let name = format!("{}-{}", partition.topic(), partition.id());
    for pair in found.windows(2) {
        let ((a_at, a), (offset, b)) = (&pair[0], &pair[1]);
        assert!(a.epoch <= b.epoch, "{name}: epoch {} after {} at {offset}", b.epoch, a.epoch);
        if a.epoch < b.epoch {
            let epoch = LeaderEpoch::new(a.epoch).expect("not negative");
            let (known, end) = partition.end_of_epoch(epoch).expect("it is known");
            // Between the two there may have been more, which compaction took.
            let between = (a_at + 1..=*offset).contains(&end.get());
            assert!(
                known == epoch && between,
                "{name}: {epoch} ends at {end}, not {a_at}..{offset}"
            );
        }
    }
    for (offset, entry) in found {
        let epoch = partition.epoch_of(Offset::new(*offset).expect("not negative"));
        assert_eq!(epoch.map(LeaderEpoch::get), Some(entry.epoch), "{name} at {offset}");
    }
}

fn show(entry: &Entry) -> String {
    let text = String::from_utf8_lossy(&entry.value);
    format!("{} (epoch {})", text.split('|').next().unwrap_or_default(), entry.epoch)
}

fn shows(entries: &[Entry]) -> String {
    entries.iter().map(show).collect::<Vec<_>>().join(" or ")
}

/// Topic names in steps are static; the few of a test may live for ever.
fn leak(name: &str) -> &'static str {
    crate::TOPICS.iter().find(|known| **known == name).expect("a topic of the tests")
}
