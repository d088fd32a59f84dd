//! The messages of the protocol, as the codec crate generates them from Kafka's own schemas.
//!
//! Invariant: strings and record bytes of a decoded message share the frame's memory; whoever
//! keeps one of them for longer than the request copies it.
//! Neighbours: `wire::message` encodes and decodes them.

/// A request, with the key and versions of its API.
pub use kafka_wire::KafkaRequest;
/// A request whose response type is known.
pub use kafka_wire::RequestResponsePair;
pub use kafka_wire::{
    ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribeProducersRequest, DescribeProducersResponse, FetchRequest,
    FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest,
    ProduceResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
pub use kafka_wire::{
    api_versions_request, api_versions_response, create_partitions_request,
    create_partitions_response, create_topics_request, create_topics_response,
    delete_topics_request, delete_topics_response, describe_cluster_response,
    describe_configs_request, describe_configs_response, describe_producers_request,
    describe_producers_response, fetch_request, fetch_response, find_coordinator_request,
    find_coordinator_response, init_producer_id_response, list_offsets_request,
    list_offsets_response, metadata_request, metadata_response, offset_for_leader_epoch_request,
    offset_for_leader_epoch_response, produce_request, produce_response,
};
/// A string of a message; shares the frame's memory.
pub use kafka_wire_core::StrBytes;
/// A UUID of a message, such as a topic id.
pub use kafka_wire_core::Uuid;
