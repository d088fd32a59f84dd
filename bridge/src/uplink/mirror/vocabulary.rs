//! What goes into a mirror and what comes out of it.

use crate::uplink::checkpoint::{Checkpoint, Target};
use crate::uplink::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;

/// Times of the state machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Batches whose newest record is older than this are sent one at a time: half of what brokers remember.
    pub(crate) old_after_ms: i64,
    /// After this long a request whose connection is gone cannot be carried out any more.
    pub(crate) settle_ms: u64,
    /// A partition that the centre refuses is tried again after this long.
    pub(crate) refused_retry_ms: u64,
    /// First and longest wait before a retry.
    pub(crate) retry_ms: (u64, u64),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            old_after_ms: 12 * 3_600_000,
            settle_ms: 35_000,
            refused_retry_ms: 60_000,
            retry_ms: (100, 10_000),
        }
    }
}

/// The moment of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds that never go back.
    pub(crate) mono_ms: u64,
    /// Milliseconds since the Unix epoch; `None` while the clock is not trusted.
    pub(crate) wall_ms: Option<i64>,
}

/// What the state machine needs next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Want {
    /// Nothing before an input, or before this moment.
    Wait(Option<u64>),
    /// Ask the centre what it has.
    Ask(Question),
    /// Make this durable, then call [`Mirror::durable`].
    Persist(Checkpoint),
    /// Offer the batch that holds this source offset.
    Batch(i64),
}

/// What to find out at the centre.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// Where.
    pub(crate) target: Target,
    /// Look for this producer; `None`: only the target's end is wanted.
    pub(crate) producer: Option<ProducerIdentity>,
    /// Search the target from here, where it must be searched.
    pub(crate) floor: i64,
    /// Search the target even if the leader remembers the producer.
    pub(crate) scan: bool,
    /// A producer id is needed, other than `producer`.
    pub(crate) fresh: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Evidence {
    /// The last sequence that the leader remembers for the producer. `None`: it does not know it.
    pub(crate) remembered: Option<i32>,
    /// Whether the target was searched from the floor to its end.
    pub(crate) scanned: bool,
    /// The target no longer has everything from the floor on.
    pub(crate) floor_gone: bool,
    /// The last sequence of the producer found by the search.
    pub(crate) found: Option<i32>,
    /// The target's high watermark before the search.
    pub(crate) end: i64,
    /// A producer id never used in this partition, when one was asked for.
    pub(crate) fresh: Option<ProducerIdentity>,
    /// Exclusive end of what the source could have sent.
    pub(crate) source_end: i64,
    /// First offset the source still has.
    pub(crate) source_start: i64,
}

/// What became of an offered batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Offer {
    /// Send it now with this address.
    Send { producer: ProducerIdentity, sequence: Sequence },
    /// Keep it, or read it again later.
    Later,
    /// It is not wanted: ask [`Mirror::want`] again.
    Drop,
}

/// What is known of a sent batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The centre's replicas have it, at this offset if it said so.
    Stored(Option<i64>),
    /// It is not there and may be sent again.
    NotStored(String),
    /// It may be there, or may yet come to be.
    Unknown(String),
    /// The centre's sequences differ from ours.
    Sequence(String),
    /// Refused for good.
    Fatal(String),
}

/// Why source offsets are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Ends of transactions, what was aborted, batches without records: nothing for the centre.
    LeftOut,
    /// Compaction took their records: newer ones of the same keys come later.
    Compacted,
    /// Their records were deleted or damaged before they were mirrored.
    Lost,
}

/// Something a person or a metric should know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// Somebody else writes to the target.
    Foreign { from: i64, delta: i64 },
    /// Source offsets were passed over.
    Skipped { from: i64, to: i64, passed: Passed },
    /// The source lost records that had been mirrored; what it holds from there on is mirrored again.
    SourceLost { from: i64, records: i64 },
    /// The target is another one than before; mirroring goes on at `from`.
    OtherTarget { from: i64 },
    /// The centre lost records that it had acknowledged; they are sent again while the source has them.
    TargetLost { records: i64 },
    /// A new producer id was taken for an old position.
    NewProducer { from: i64 },
    /// A new producer id was taken because the data directory came from another machine.
    OtherMachine { from: i64 },
    /// A part of the target that could hold ours is gone; some records may be there twice.
    Doubtful { from: i64 },
    /// The partition stopped.
    Stopped { reason: String },
}
