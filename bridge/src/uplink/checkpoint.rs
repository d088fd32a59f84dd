//! What an uplink must remember of one partition over a restart, and its form in `__headwater_uplinks`.
//!
//! Invariant: batches are sent one to one as they are stored, so the boundaries of everything that was
//! sent under an anchor follow from the source log itself, and sequences from the offsets. A checkpoint
//! with a given producer and anchor is durable before the first batch is sent under them. A checkpoint that came with
//! the data directory from another machine is marked ([`Checkpoint::moved`]) before that machine's name is forgotten:
//! nothing is sent under its producer any more.
//!
//! Key (big-endian): u8 version = 1; u16 length, the uplink's name; 16 bytes source topic id; i32 partition.
//!
//! Value (big-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version: 2 with the last field, which earlier programs must not pass over; else 1 |
//! | 2 + n | cluster id of the centre, UTF-8 |
//! | 2 + n | target topic, UTF-8 |
//! | 16 | target topic id, zero where the centre has none |
//! | 8, 2 | producer id, producer epoch |
//! | 4, 8, 4 | anchor: source leader epoch, source offset, and the sequence that this offset has |
//! | 4, 8 | acknowledged: source leader epoch of the last record, exclusive end offset |
//! | 8 | floor: nothing of ours that is not acknowledged lies below this target offset |
//! | 2 | number of steps, at most 64: the newest |
//! | 8, 8, 1 each | from this source offset on, target offset less source offset, cause |
//! | 8 | version 2 only: moved, the exclusive end that the source had when the directory came from another machine |

use super::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;
use headwater_log::{LeaderEpoch, Offset, PartitionId, Position, TopicId};

const VERSION: u8 = 1;
/// The version of a value that ends with `moved`.
const VERSION_MOVED: u8 = 2;

/// Steps kept per partition; older ones are of no use for a translation of current positions.
pub(crate) const STEPS_MAX: usize = 64;

/// Names a partition of an uplink: the key of its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) uplink: String,
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
}

/// Where the records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) cluster_id: String,
    pub(crate) topic: String,
    pub(crate) topic_id: [u8; 16],
}

/// Ties a source offset to a sequence of the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) source: Position,
    pub(crate) sequence: Sequence,
}

/// Why the delta is what it is from some offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The first batch under an anchor.
    Start,
    /// Somebody else wrote to the target.
    Foreign,
    /// Source offsets without a record in the target: control batches, deleted records.
    Skipped,
}

/// From source offset `from` on, a record's target offset is its source offset plus `delta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: i64,
    pub(crate) delta: i64,
    pub(crate) cause: Cause,
}

/// The durable state of one partition's mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) target: Target,
    pub(crate) producer: ProducerIdentity,
    pub(crate) anchor: Anchor,
    /// Exclusive end of what the centre has acknowledged, with the epoch of the record before it.
    pub(crate) acked: Position,
    pub(crate) floor: i64,
    pub(crate) steps: Vec<Step>,
    /// The directory came from another machine, and the source ended here then. A twin of it may go on under the same
    /// producer: what the centre has of that producer counts up to here at most, then a new one is taken.
    pub(crate) moved: Option<Offset>,
}

/// Why a stored checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("version {0} of an uplink checkpoint was written by a newer Headwater")]
    FromTheFuture(u8),
    #[error("uplink checkpoint is malformed")]
    Malformed,
}

impl Key {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.uplink);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(&self.partition.get().to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut input = Input(bytes);
        input.version(VERSION)?;
        let uplink = input.text()?;
        let topic = TopicId::from_bytes(input.array()?);
        let partition = PartitionId::new(i32::from_be_bytes(input.array()?));
        input.end()?;
        Ok(Self { uplink, topic, partition: partition.ok_or(CheckpointError::Malformed)? })
    }
}

impl Checkpoint {
    /// The sequence that the record at a source offset has under the anchor.
    pub(crate) fn sequence_at(&self, offset: i64) -> Sequence {
        self.anchor.sequence.plus(offset - self.anchor.source.offset.get())
    }

    /// The current difference between target and source offsets, once something was acknowledged.
    pub(crate) fn delta(&self) -> Option<i64> {
        self.steps.last().map(|step| step.delta)
    }

    /// Adds a step, dropping the oldest above the limit.
    pub(crate) fn push_step(&mut self, step: Step) {
        if self.steps.len() >= STEPS_MAX {
            self.steps.remove(0);
        }
        self.steps.push(step);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let version = if self.moved.is_some() { VERSION_MOVED } else { VERSION };
        let mut out = vec![version];
        put_text(&mut out, &self.target.cluster_id);
        put_text(&mut out, &self.target.topic);
        out.extend_from_slice(&self.target.topic_id);
        out.extend_from_slice(&self.producer.id.to_be_bytes());
        out.extend_from_slice(&self.producer.epoch.to_be_bytes());
        put_position(&mut out, self.anchor.source);
        out.extend_from_slice(&self.anchor.sequence.get().to_be_bytes());
        put_position(&mut out, self.acked);
        out.extend_from_slice(&self.floor.to_be_bytes());
        let steps = &self.steps[self.steps.len().saturating_sub(STEPS_MAX)..];
        out.extend_from_slice(&u16::try_from(steps.len()).unwrap_or(0).to_be_bytes());
        for step in steps {
            out.extend_from_slice(&step.from.to_be_bytes());
            out.extend_from_slice(&step.delta.to_be_bytes());
            out.push(match step.cause {
                Cause::Start => 0,
                Cause::Foreign => 1,
                Cause::Skipped => 2,
            });
        }
        if let Some(end) = self.moved {
            out.extend_from_slice(&end.get().to_be_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut input = Input(bytes);
        let version = input.version(VERSION_MOVED)?;
        let cluster_id = input.text()?;
        let topic = input.text()?;
        let topic_id = input.array()?;
        let id = i64::from_be_bytes(input.array()?);
        let epoch = i16::from_be_bytes(input.array()?);
        let source = input.position()?;
        let sequence = Sequence::new(i32::from_be_bytes(input.array()?));
        let sequence = sequence.ok_or(CheckpointError::Malformed)?;
        let acked = input.position()?;
        let floor = i64::from_be_bytes(input.array()?);
        let count = usize::from(u16::from_be_bytes(input.array()?));
        if count > STEPS_MAX {
            return Err(CheckpointError::Malformed);
        }
        let steps = (0..count).map(|_| input.step()).collect::<Result<_, _>>()?;
        let moved = match version {
            VERSION_MOVED => Some(input.offset()?),
            _ => None,
        };
        input.end()?;
        Ok(Self {
            target: Target { cluster_id, topic, topic_id },
            producer: ProducerIdentity { id, epoch },
            anchor: Anchor { source, sequence },
            acked,
            floor,
            steps,
            moved,
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names of uplinks, clusters and topics are short; a longer one is cut, never a wrong length written.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.epoch.get().to_be_bytes());
    out.extend_from_slice(&position.offset.get().to_be_bytes());
}

/// Bytes not yet read; every read is checked.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn version(&mut self, newest: u8) -> Result<u8, CheckpointError> {
        match self.array()? {
            [0] => Err(CheckpointError::Malformed),
            [version] if version <= newest => Ok(version),
            [newer] => Err(CheckpointError::FromTheFuture(newer)),
        }
    }

    fn offset(&mut self) -> Result<Offset, CheckpointError> {
        Offset::new(i64::from_be_bytes(self.array()?)).ok_or(CheckpointError::Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(CheckpointError::Malformed)?;
        self.0 = rest;
        Ok(*front)
    }

    fn text(&mut self) -> Result<String, CheckpointError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (front, rest) = self.0.split_at_checked(length).ok_or(CheckpointError::Malformed)?;
        self.0 = rest;
        String::from_utf8(front.to_vec()).map_err(|_| CheckpointError::Malformed)
    }

    fn position(&mut self) -> Result<Position, CheckpointError> {
        let epoch = LeaderEpoch::new(i32::from_be_bytes(self.array()?));
        let offset = self.offset()?;
        Ok(Position { epoch: epoch.ok_or(CheckpointError::Malformed)?, offset })
    }

    fn step(&mut self) -> Result<Step, CheckpointError> {
        let from = i64::from_be_bytes(self.array()?);
        let delta = i64::from_be_bytes(self.array()?);
        let cause = match self.array()? {
            [0] => Cause::Start,
            [1] => Cause::Foreign,
            [2] => Cause::Skipped,
            _ => return Err(CheckpointError::Malformed),
        };
        Ok(Step { from, delta, cause })
    }

    fn end(self) -> Result<(), CheckpointError> {
        if self.0.is_empty() { Ok(()) } else { Err(CheckpointError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: i32, offset: i64) -> Position {
        Position { epoch: LeaderEpoch::new(epoch).unwrap(), offset: Offset::new(offset).unwrap() }
    }

    fn checkpoint(steps: usize) -> Checkpoint {
        let step = |i: usize| Step { from: i as i64, delta: -3, cause: Cause::Foreign };
        Checkpoint {
            target: Target {
                cluster_id: "abc".to_owned(),
                topic: "plant.telemetry".to_owned(),
                topic_id: [7; 16],
            },
            producer: ProducerIdentity { id: 4_001, epoch: 2 },
            anchor: Anchor {
                source: position(3, 100),
                sequence: Sequence::new(i32::MAX - 5).unwrap(),
            },
            acked: position(4, 250),
            floor: 240,
            steps: (0..steps).map(step).collect(),
            moved: None,
        }
    }

    #[test]
    fn a_checkpoint_survives_its_encoding_and_no_other_length() {
        for steps in [0, 1, STEPS_MAX] {
            let bytes = checkpoint(steps).encode();
            assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint(steps)));
            for cut in 0..bytes.len() {
                assert_eq!(Checkpoint::decode(&bytes[..cut]), Err(CheckpointError::Malformed));
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Checkpoint::decode(&longer), Err(CheckpointError::Malformed));
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = checkpoint(0).encode();
        bytes[0] = 3;
        assert_eq!(Checkpoint::decode(&bytes), Err(CheckpointError::FromTheFuture(3)));
    }

    #[test]
    fn a_moved_checkpoint_survives_its_encoding_and_is_not_taken_for_another() {
        let moved = Checkpoint { moved: Offset::new(260), ..checkpoint(2) };
        let bytes = moved.encode();
        assert_eq!(bytes[0], 2, "a program that does not know the mark must not go on");
        assert_eq!(Checkpoint::decode(&bytes), Ok(moved));
        for cut in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..cut]), Err(CheckpointError::Malformed));
        }
    }

    #[test]
    fn a_key_survives_its_encoding() {
        let key = Key {
            uplink: "dc".to_owned(),
            topic: TopicId::from_bytes([9; 16]),
            partition: PartitionId::new(12).unwrap(),
        };
        assert_eq!(Key::decode(&key.encode()), Ok(key.clone()));
        assert!(Key::decode(&key.encode()[1..]).is_err());
    }

    #[test]
    fn sequences_follow_from_offsets_over_the_wrap() {
        let c = checkpoint(0);
        assert_eq!(c.sequence_at(100).get(), i32::MAX - 5);
        assert_eq!(c.sequence_at(106).get(), 0);
        assert_eq!(c.sequence_at(250).get(), 144);
    }

    #[test]
    fn steps_are_bounded() {
        let mut c = checkpoint(STEPS_MAX);
        c.push_step(Step { from: 999, delta: 5, cause: Cause::Start });
        assert_eq!(c.steps.len(), STEPS_MAX);
        assert_eq!(c.delta(), Some(5));
    }
}
