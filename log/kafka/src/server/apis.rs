//! The table of APIs: what is advertised, and how a request finds its module.
//!
//! Invariant: nothing is advertised that is not implemented, Produce 0-2 excepted, which are answered
//! UNSUPPORTED_VERSION (librdkafka up to 2.0 drops compression when Produce starts above 2, KAFKA-18659).
//! Neighbours: `connection` above; one module per API below.

use super::{
    Door, api_versions, create_partitions, create_topics, delete_topics, describe_cluster,
    describe_configs, describe_producers, fetch, find_coordinator, init_producer_id, list_offsets,
    metadata, offset_for_leader_epoch, produce, sasl_handshake,
};
use crate::wire::messages::RequestResponsePair;
use crate::wire::{ApiKey, Limits, RequestHead, Versions, WireError};
use crate::wire::{decode_request, encode_response, is_flexible, messages};
use bytes::Bytes;

/// One API key.
pub(super) struct Api {
    pub(super) key: ApiKey,
    pub(super) name: &'static str,
    pub(super) versions: Versions,
    flexible: fn(i16) -> bool,
}

macro_rules! api {
    ($key:ident, $name:literal, $module:ident, $request:ident) => {
        Api {
            key: ApiKey::$key,
            name: $name,
            versions: $module::VERSIONS,
            flexible: is_flexible::<messages::$request>,
        }
    };
}

/// Everything that ApiVersions advertises, in the order of the keys.
pub(super) const TABLE: &[Api] = &[
    api!(PRODUCE, "Produce", produce, ProduceRequest),
    api!(FETCH, "Fetch", fetch, FetchRequest),
    api!(LIST_OFFSETS, "ListOffsets", list_offsets, ListOffsetsRequest),
    api!(METADATA, "Metadata", metadata, MetadataRequest),
    api!(FIND_COORDINATOR, "FindCoordinator", find_coordinator, FindCoordinatorRequest),
    api!(SASL_HANDSHAKE, "SaslHandshake", sasl_handshake, SaslHandshakeRequest),
    api!(API_VERSIONS, "ApiVersions", api_versions, ApiVersionsRequest),
    api!(CREATE_TOPICS, "CreateTopics", create_topics, CreateTopicsRequest),
    api!(DELETE_TOPICS, "DeleteTopics", delete_topics, DeleteTopicsRequest),
    api!(INIT_PRODUCER_ID, "InitProducerId", init_producer_id, InitProducerIdRequest),
    api!(
        OFFSET_FOR_LEADER_EPOCH,
        "OffsetForLeaderEpoch",
        offset_for_leader_epoch,
        OffsetForLeaderEpochRequest
    ),
    api!(DESCRIBE_CONFIGS, "DescribeConfigs", describe_configs, DescribeConfigsRequest),
    api!(CREATE_PARTITIONS, "CreatePartitions", create_partitions, CreatePartitionsRequest),
    api!(DESCRIBE_CLUSTER, "DescribeCluster", describe_cluster, DescribeClusterRequest),
    api!(DESCRIBE_PRODUCERS, "DescribeProducers", describe_producers, DescribeProducersRequest),
];

/// The entry of a key, `None` for an API that is not served.
pub(super) fn find(key: ApiKey) -> Option<&'static Api> {
    TABLE.iter().find(|api| api.key == key)
}

/// Whether a request's header ends with tagged fields. An unknown key or version: no.
pub(super) fn has_tags(key: i16, version: i16) -> bool {
    find(ApiKey(key)).is_some_and(|api| api.versions.contains(version) && (api.flexible)(version))
}

/// Answers a request that is not a Produce request: the response's frame, in pieces.
///
/// # Errors
/// [`WireError`]: close the connection. Key and version were checked before.
pub(super) async fn answer(
    door: &Door,
    head: &RequestHead,
    body: Bytes,
    limits: Limits,
) -> Result<Vec<Bytes>, WireError> {
    /// Decode, answer, encode: the same for every API but Produce and Fetch.
    macro_rules! plain {
        ($request:ident, $module:ident) => {{
            let request = decode_request::<messages::$request>(body, head.api_version, limits)?;
            let response = $module::answer(door, request, head.api_version).await;
            one::<messages::$request>(head, &response)
        }};
    }
    match ApiKey(head.api_key) {
        ApiKey::FETCH => fetch::answer(door, head, body, limits).await,
        ApiKey::LIST_OFFSETS => plain!(ListOffsetsRequest, list_offsets),
        ApiKey::METADATA => plain!(MetadataRequest, metadata),
        ApiKey::FIND_COORDINATOR => plain!(FindCoordinatorRequest, find_coordinator),
        ApiKey::SASL_HANDSHAKE => plain!(SaslHandshakeRequest, sasl_handshake),
        ApiKey::CREATE_TOPICS => plain!(CreateTopicsRequest, create_topics),
        ApiKey::DELETE_TOPICS => plain!(DeleteTopicsRequest, delete_topics),
        ApiKey::INIT_PRODUCER_ID => plain!(InitProducerIdRequest, init_producer_id),
        ApiKey::OFFSET_FOR_LEADER_EPOCH => {
            plain!(OffsetForLeaderEpochRequest, offset_for_leader_epoch)
        }
        ApiKey::DESCRIBE_CONFIGS => plain!(DescribeConfigsRequest, describe_configs),
        ApiKey::CREATE_PARTITIONS => plain!(CreatePartitionsRequest, create_partitions),
        ApiKey::DESCRIBE_CLUSTER => plain!(DescribeClusterRequest, describe_cluster),
        ApiKey::DESCRIBE_PRODUCERS => plain!(DescribeProducersRequest, describe_producers),
        // Only ApiVersions is left: `connection` lets no other key come here.
        _ => api_versions::answer(door, head, body, limits),
    }
}

/// One response as the only piece of its frame.
pub(super) fn one<R: RequestResponsePair>(
    head: &RequestHead,
    response: &R::Response,
) -> Result<Vec<Bytes>, WireError> {
    encode_response::<R>(head.correlation_id, head.api_version, response).map(|frame| vec![frame])
}
