//! DescribeProducers (key 61), version 0 (KIP-664): what the log knows of idempotent producers.
//!
//! Invariant: only what is in the partition's state is told, -1 where it knows nothing.
//! Neighbours: `headwater_log::Partition::producers`; the uplink asks its centre the same.

use super::{Door, lookup};
use crate::message;
use crate::wire::Versions;
use crate::wire::messages::{
    DescribeProducersRequest, DescribeProducersResponse, describe_producers_response,
};
use headwater_log::Producer;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 0);

/// The active producers of every partition asked for.
pub(super) async fn answer(
    door: &Door,
    request: DescribeProducersRequest,
    _version: i16,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let topic = lookup::topic(door, &asked.name);
        let partitions = asked.partition_indexes.iter().map(|index| {
            match lookup::partition(topic.as_ref(), *index) {
                Ok(log) => message!(describe_producers_response::PartitionResponse {
                    partition_index: *index,
                    active_producers: log.producers().iter().map(state).collect(),
                }),
                Err(code) => message!(describe_producers_response::PartitionResponse {
                    partition_index: *index,
                    error_code: door.code(code),
                    error_message: Some("no such topic or partition".into()),
                }),
            }
        });
        let partitions = partitions.collect();
        message!(describe_producers_response::TopicResponse {
            name: asked.name,
            partitions: partitions,
        })
    });
    message!(DescribeProducersResponse { topics: topics.collect() })
}

fn state(producer: &Producer) -> describe_producers_response::ProducerState {
    message!(describe_producers_response::ProducerState {
        producer_id: producer.id,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.open_from.map_or(-1, headwater_log::Offset::get),
    })
}
