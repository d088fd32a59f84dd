//! What can happen to a simulated log, one step at a time, and the steps that change metadata.

use crate::collect::cycles;
use crate::model::{Change, PartitionModel, TopicModel};
use crate::replica::Replica;
use crate::sim::Sim;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::{Offset, TopicName};

/// One thing a client or time does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create {
        topic: &'static str,
        partitions: u32,
        settings: TopicSettings,
    },
    Grow {
        topic: &'static str,
        partitions: u32,
    },
    Alter {
        topic: &'static str,
        settings: TopicSettings,
    },
    Delete {
        topic: &'static str,
    },
    /// Records through the open batch.
    Append {
        topic: &'static str,
        partition: usize,
        records: usize,
        bytes: usize,
    },
    /// A batch of an idempotent producer.
    Produce {
        topic: &'static str,
        partition: usize,
        records: usize,
        bytes: usize,
    },
    /// The last batch of that producer once more.
    Repeat {
        topic: &'static str,
        partition: usize,
    },
    /// Records within a transaction of one of the partition's producers.
    InTransaction {
        topic: &'static str,
        partition: usize,
        producer: i64,
        records: usize,
    },
    /// The end of that producer's transaction.
    Marker {
        topic: &'static str,
        partition: usize,
        producer: i64,
        commit: bool,
    },
    /// A reader of committed data reads all that it may.
    ReadCommitted {
        topic: &'static str,
        partition: usize,
    },
    /// DeleteRecords below this part (of 8) of the partition.
    Trim {
        topic: &'static str,
        partition: usize,
        eighths: u32,
    },
    /// Lookups by time and by label, compared with a scan.
    LookUp {
        topic: &'static str,
        partition: usize,
    },
    /// An index file of the partition is emptied, cut, filled or turned, in a way that follows from the number.
    Spoil {
        topic: &'static str,
        partition: usize,
        how: u32,
    },
    /// What happens to one replica of several.
    Replica {
        topic: &'static str,
        partition: usize,
        what: Replica,
    },
    /// An uplink's hold, and what it has a durable checkpoint of: this part (of 8) of what is left.
    Hold {
        topic: &'static str,
        partition: usize,
        eighths: u32,
    },
    /// From now on the disk has this much room left, or as much as anybody wants.
    Room {
        kib: Option<u32>,
    },
    /// Time passes.
    Wait {
        ms: u32,
    },
    /// The disk of this data directory dies.
    Die {
        directory: usize,
    },
    /// Cycles of the commit thread, and what they leave to others, until nothing waits.
    Commit,
    /// One step of that.
    Turn,
    /// One turn of the housekeeping thread.
    Housekeep,
    /// Compaction of all that is due, with these steps between its pieces.
    Compact {
        between: Vec<Step>,
    },
    /// A checkpoint.
    Checkpoint,
}

impl Sim {
    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            if self.disk.is_stopped() {
                break;
            }
            self.step(step);
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.disk.note(&format!("{step:?}"));
        match *step {
            Step::Create { topic, partitions, ref settings } => {
                self.create(topic, partitions, settings);
            }
            Step::Grow { topic, partitions } => self.grow(topic, partitions),
            Step::Alter { topic, ref settings } => self.alter(topic, settings),
            Step::Delete { topic } => self.delete(topic),
            Step::Append { topic, partition, records, bytes } => {
                self.append(topic, partition, records, bytes);
            }
            Step::Produce { topic, partition, records, bytes } => {
                self.produce(topic, partition, records, bytes);
            }
            Step::Repeat { topic, partition } => self.repeat(topic, partition),
            Step::InTransaction { topic, partition, producer, records } => {
                self.in_transaction(topic, partition, producer, records);
            }
            Step::Marker { topic, partition, producer, commit } => {
                self.mark(topic, partition, producer, commit);
            }
            Step::ReadCommitted { topic, partition } => self.read_committed(topic, partition),
            Step::Trim { topic, partition, eighths } => self.trim(topic, partition, eighths),
            Step::LookUp { topic, partition } => self.look_up(topic, partition),
            Step::Spoil { topic, partition, how } => self.spoil(topic, partition, how),
            Step::Die { directory } => self.disk.kill_below(&self.options.dirs[directory]),
            Step::Hold { topic, partition, eighths } => self.hold(topic, partition, eighths),
            Step::Room { kib } => self.limit(kib),
            Step::Replica { topic, partition, what } => self.replica(topic, partition, what),
            Step::Wait { ms } => self.clock.advance_ms(ms),
            Step::Commit => {
                let log = self.log().clone();
                while log.step_commit() {}
            }
            Step::Turn => drop(self.log().step_commit()),
            Step::Housekeep => {
                self.allow_retention();
                self.log().step_upkeep();
            }
            Step::Compact { ref between } => self.compact(between),
            // An error takes the log offline, which shows.
            Step::Checkpoint => drop(self.log().step_checkpoint()),
        }
        self.collect();
    }

    fn create(&mut self, topic: &str, partitions: u32, settings: &TopicSettings) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().create_topic(&name, partitions, settings.clone()) {
            Ok((created, cycle)) => {
                let there = self.model.topics.insert(
                    topic.to_owned(),
                    TopicModel {
                        id: created.id(),
                        settings: vec![settings.clone()],
                        partitions: vec![PartitionModel::default(); partitions as usize],
                        created: false,
                        memory: settings.durability == Durability::Memory,
                    },
                );
                assert!(there.is_none(), "{topic} was created twice");
                self.model
                    .pending
                    .push((cycle, Change::Created(created.id(), partitions as usize)));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn grow(&mut self, topic: &str, partitions: u32) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().add_partitions(&name, partitions) {
            Ok((_, cycle)) => {
                let model = self.model.topics.get_mut(topic).expect("it exists");
                model.partitions.resize_with(partitions as usize, PartitionModel::default);
                let change = Change::Grown(model.id, partitions as usize);
                self.model.pending.push((cycle, change));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn alter(&mut self, topic: &str, settings: &TopicSettings) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().alter_topic(&name, settings.clone()) {
            Ok(cycle) => {
                let model = self.model.topics.get_mut(topic).expect("it exists");
                model.settings.push(settings.clone());
                model.memory |= settings.durability == Durability::Memory;
                let change = Change::Altered(model.id, settings.clone());
                self.model.pending.push((cycle, change));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn delete(&mut self, topic: &str) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().delete_topic(&name) {
            Ok(cycle) => {
                let model = self.model.topics.remove(topic).expect("it exists");
                let id = model.id;
                self.model.graves.push((topic.to_owned(), model, false));
                self.model.pending.push((cycle, Change::Deleted(id)));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn trim(&mut self, topic: &str, partition: usize, eighths: u32) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let positions = target.positions();
        let room = positions.high_watermark.get() - positions.log_start.get();
        let before = positions.log_start.get() + room * i64::from(eighths) / 8;
        target.delete_before(Offset::new(before).expect("not negative"));
        let id = target.topic_id();
        let model = self.part(topic, partition);
        model.start_max = model.start_max.max(before);
        let cycles = cycles(self.log(), &target);
        self.model.pending.push((cycles, Change::Trimmed(id, partition, before)));
    }
}
