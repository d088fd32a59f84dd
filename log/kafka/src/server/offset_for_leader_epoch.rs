//! OffsetForLeaderEpoch (key 23), versions 2-4: where an epoch ended (KIP-101, KIP-320).
//!
//! v2 takes the leader epoch that the client believes in, v3 the replica id, v4 tagged fields.
//! Invariant: of an epoch that nothing is known of, the answer is -1 and -1, never a guess.
//! Neighbours: `headwater_log::Partition::end_of_epoch`.

use super::{Door, lookup};
use crate::message;
use crate::wire::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, offset_for_leader_epoch_request,
    offset_for_leader_epoch_response,
};
use crate::wire::{ErrorCode, Versions};
use headwater_log::{LeaderEpoch, Topic};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(2, 4);

/// The end of the asked epoch, or of the largest one below it.
pub(super) async fn answer(
    door: &Door,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let topic = lookup::topic(door, &asked.topic);
        let partitions = asked.partitions.iter().map(|wanted| {
            let (code, epoch, end) = match find(topic.as_ref(), wanted) {
                Ok((epoch, end)) => (ErrorCode::None, epoch, end),
                Err(code) => (code, -1, -1),
            };
            message!(offset_for_leader_epoch_response::EpochEndOffset {
                error_code: door.code(code),
                partition: wanted.partition,
                leader_epoch: epoch,
                end_offset: end,
            })
        });
        let partitions = partitions.collect();
        message!(offset_for_leader_epoch_response::OffsetForLeaderTopicResult {
            topic: asked.topic,
            partitions: partitions,
        })
    });
    message!(OffsetForLeaderEpochResponse { topics: topics.collect() })
}

fn find(
    topic: Option<&Topic>,
    wanted: &offset_for_leader_epoch_request::OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let log = lookup::partition(topic, wanted.partition)?;
    lookup::check_present(log)?;
    lookup::check_epoch(wanted.current_leader_epoch, log.positions().epoch)?;
    let known = LeaderEpoch::new(wanted.leader_epoch).and_then(|epoch| log.end_of_epoch(epoch));
    Ok(known.map_or((-1, -1), |(epoch, end)| (epoch.get(), end.get())))
}
