//! The response to Fetch, written by hand so that no record is copied.
//!
//! Invariant: byte for byte what the codec would write; the tests compare them at every version.
//! Neighbours: `fetch` fills the answers, `wire::Writer` joins headers and batches.

use super::pointers;
use crate::wire::{RequestHead, WireError, Writer};
use bytes::Bytes;
use headwater_log::{AbortedTransaction, Positions};

/// From here on the form is flexible (KIP-482).
const VERSION_FLEXIBLE: i16 = 12;

/// The answers for one topic.
pub(super) struct TopicAnswer<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: Vec<PartitionAnswer>,
}

/// The answer for one partition.
#[derive(Debug, Clone)]
pub(super) struct PartitionAnswer {
    index: i32,
    error: i16,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    /// What readers of committed data leave out; `None` for others.
    aborted: Option<Vec<AbortedTransaction>>,
    pub(super) batches: Vec<Bytes>,
}

impl PartitionAnswer {
    pub(super) fn error(index: i32, error: i16) -> Self {
        let (high_watermark, last_stable, log_start) = (-1, -1, -1);
        let batches = Vec::new();
        Self { index, error, high_watermark, last_stable, log_start, aborted: None, batches }
    }

    pub(super) fn empty(index: i32, positions: &Positions) -> Self {
        Self::read(index, positions, Vec::new())
    }

    pub(super) fn read(index: i32, positions: &Positions, batches: Vec<Bytes>) -> Self {
        let (high_watermark, last_stable, log_start) = pointers(positions);
        Self { index, error: 0, high_watermark, last_stable, log_start, aborted: None, batches }
    }

    /// For a client that reads committed data only: the transactions whose records it leaves out. An answer without records
    /// needs none.
    pub(super) fn read_committed(mut self, aborted: Vec<AbortedTransaction>) -> Self {
        let leaves_out = self.error == 0 && !self.batches.is_empty();
        self.aborted = (self.error == 0).then_some(if leaves_out { aborted } else { Vec::new() });
        self
    }
}

/// The whole frame, in pieces.
///
/// # Errors
/// None that bounded answers can cause: a frame above 2 GiB.
pub(super) fn encode(
    head: &RequestHead,
    error: i16,
    topics: &[TopicAnswer<'_>],
) -> Result<Vec<Bytes>, WireError> {
    let version = head.api_version;
    let mut w = Writer::response(head.correlation_id, version >= VERSION_FLEXIBLE);
    w.i32(0); // throttle time
    if version >= 7 {
        w.i16(error);
        w.i32(0); // session id: none
    }
    w.array(Some(topics.len()));
    for topic in topics {
        w.string(topic.name);
        w.array(Some(topic.partitions.len()));
        for partition in &topic.partitions {
            encode_partition(&mut w, version, partition);
        }
        w.tags();
    }
    w.tags();
    w.finish().ok_or(WireError::TooLong)
}

fn encode_partition(w: &mut Writer, version: i16, answer: &PartitionAnswer) {
    w.i32(answer.index);
    w.i16(answer.error);
    w.i64(answer.high_watermark);
    w.i64(answer.last_stable);
    if version >= 5 {
        w.i64(answer.log_start);
    }
    w.array(answer.aborted.as_ref().map(Vec::len));
    for aborted in answer.aborted.iter().flatten() {
        w.i64(aborted.producer_id);
        w.i64(aborted.first.get());
        w.tags();
    }
    if version >= 11 {
        w.i32(-1); // preferred read replica: none
    }
    w.records(&answer.batches);
    w.tags();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use crate::wire::messages::{FetchRequest, FetchResponse, fetch_response};
    use crate::wire::{RequestHead, encode_response};

    fn by_codec(version: i16, topics: &[TopicAnswer<'_>]) -> Bytes {
        let topics = topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| {
                message!(fetch_response::PartitionData {
                    partition_index: p.index,
                    error_code: p.error,
                    high_watermark: p.high_watermark,
                    last_stable_offset: p.last_stable,
                    log_start_offset: p.log_start,
                    aborted_transactions: p.aborted.as_ref().map(|list| {
                        let one = |t: &AbortedTransaction| {
                            message!(fetch_response::AbortedTransaction {
                                producer_id: t.producer_id,
                                first_offset: t.first.get(),
                            })
                        };
                        list.iter().map(one).collect()
                    }),
                    records: Some(p.batches.concat().into()),
                })
            });
            message!(fetch_response::FetchableTopicResponse {
                topic: topic.name.into(),
                partitions: partitions.collect(),
            })
        });
        let response = message!(FetchResponse { responses: topics.collect() });
        encode_response::<FetchRequest>(77, version, &response).unwrap()
    }

    #[test]
    fn every_version_is_what_the_codec_writes() {
        let positions = Positions {
            log_start: headwater_log::Offset::new(3).unwrap(),
            high_watermark: headwater_log::Offset::new(900).unwrap(),
            last_stable: headwater_log::Offset::new(800).unwrap(),
            ..Positions::default()
        };
        let batches = vec![Bytes::from_static(&[7; 300]), Bytes::from_static(b"second")];
        let offset = |n| headwater_log::Offset::new(n).unwrap();
        let txn = |producer_id, first| AbortedTransaction {
            producer_id,
            first: offset(first),
            last: offset(700),
            last_stable: offset(701),
        };
        for aborted in [None, Some(vec![]), Some(vec![txn(7, 3), txn(i64::MAX, 600)])] {
            let committed = |answer: PartitionAnswer| match &aborted {
                Some(list) => answer.read_committed(list.clone()),
                None => answer,
            };
            let topics = [
                TopicAnswer {
                    name: "plant.telemetry",
                    partitions: vec![
                        committed(PartitionAnswer::read(0, &positions, batches.clone())),
                        committed(PartitionAnswer::empty(1, &positions)),
                        committed(PartitionAnswer::error(2, 3)),
                    ],
                },
                TopicAnswer { name: "b", partitions: Vec::new() },
            ];
            for version in 4..=12 {
                let head = RequestHead {
                    api_key: 1,
                    api_version: version,
                    correlation_id: 77,
                    client_id: None,
                };
                let found = encode(&head, 0, &topics).unwrap();
                let whole = by_codec(version, &topics);
                assert_eq!(found.concat(), whole, "version {version}");
                // The batches are the same memory, not copies.
                assert_eq!(found.iter().filter(|p| p.as_ptr() == batches[0].as_ptr()).count(), 1);
            }
        }
    }
}
