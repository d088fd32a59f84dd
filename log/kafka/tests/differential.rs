//! Another codec, `kafka-protocol`, reads every message that is written here and writes the same bytes, at every
//! version that is advertised; and what it writes is read here. Generated from the same schemas by other
//! people: where both agree, the form is Kafka's.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, its helpers too")]

use bytes::{Bytes, BytesMut};
use headwater_kafka::message;
use headwater_kafka::wire::messages::{self as ours, RequestResponsePair};
use headwater_kafka::wire::{
    Limits, decode_request, decode_request_head, decode_response, encode_request, encode_response,
    is_flexible,
};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use std::fmt::Debug;

const LIMITS: Limits = Limits::for_frames_of(1 << 20);

/// Both directions of one API at one version.
fn compare<O, T>(version: i16, request: &O, response: &O::Response)
where
    O: RequestResponsePair + PartialEq + Debug,
    O::Response: PartialEq + Debug,
    T: Request + HeaderVersion,
{
    let mut frame = BytesMut::new();
    encode_request(&mut frame, 5, Some(&"plant".into()), version, request).unwrap();
    let mut bytes = frame.freeze().slice(4..);
    let (head, body) =
        decode_request_head(bytes.clone(), LIMITS, |_, _| is_flexible::<O>(version)).unwrap();
    assert_eq!((head.api_key, head.api_version), (T::KEY, version));
    let header = theirs::RequestHeader::decode(&mut bytes, T::header_version(version)).unwrap();
    assert_eq!((header.correlation_id, header.client_id.as_deref()), (5, Some("plant")));
    assert_eq!(bytes, body, "request header, version {version}");
    let again = recode::<T>(&mut bytes, version);
    assert_eq!(again, body, "request, version {version}");
    let read: O = decode_request(again, version, LIMITS).unwrap();
    let mut rewritten = BytesMut::new();
    encode_request(&mut rewritten, 5, Some(&"plant".into()), version, &read).unwrap();
    assert!(rewritten.ends_with(&body), "request read back, version {version}");

    let frame = encode_response::<O>(6, version, response).unwrap().slice(4..);
    let mut bytes = frame.clone();
    let header_version = T::Response::header_version(version);
    let header = theirs::ResponseHeader::decode(&mut bytes, header_version).unwrap();
    assert_eq!(header.correlation_id, 6);
    let body = bytes.clone();
    assert_eq!(recode::<T::Response>(&mut bytes, version), body, "response, version {version}");
    let read = decode_response::<O>(frame.clone(), 6, version, LIMITS).unwrap();
    assert_eq!(encode_response::<O>(6, version, &read).unwrap().slice(4..), frame);
}

fn recode<M: Decodable + Encodable>(bytes: &mut Bytes, version: i16) -> Bytes {
    let message = M::decode(bytes, version).unwrap();
    assert!(bytes.is_empty(), "they leave {} bytes at version {version}", bytes.len());
    let mut again = BytesMut::new();
    message.encode(&mut again, version).unwrap();
    again.freeze()
}

#[test]
fn produce() {
    use ours::{produce_request as q, produce_response as a};
    for version in 3..=11 {
        let request = message!(ours::ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![message!(q::TopicProduceData {
                name: "telemetry".into(),
                partition_data: vec![message!(q::PartitionProduceData {
                    index: 3,
                    records: Some(Bytes::from_static(b"sixty-one bytes and more")),
                })],
            })],
        });
        let records = message!(a::BatchIndexAndErrorMessage {
            batch_index: 4,
            batch_index_error_message: Some("no key".into()),
        });
        let response = message!(ours::ProduceResponse {
            responses: vec![message!(a::TopicProduceResponse {
                name: "telemetry".into(),
                partition_responses: vec![message!(a::PartitionProduceResponse {
                    index: 3,
                    error_code: 87,
                    base_offset: -1,
                    log_append_time_ms: -1,
                    log_start_offset: 17,
                    record_errors: vec![records],
                    error_message: Some("no key".into()),
                })],
            })],
        });
        compare::<ours::ProduceRequest, theirs::ProduceRequest>(version, &request, &response);
    }
}

#[test]
fn fetch() {
    use ours::{fetch_request as q, fetch_response as a};
    for version in 4..=12 {
        let request = message!(ours::FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation_level: 1,
            topics: vec![message!(q::FetchTopic {
                topic: "telemetry".into(),
                partitions: vec![message!(q::FetchPartition {
                    partition: 1,
                    current_leader_epoch: if version >= 9 { 4 } else { -1 },
                    fetch_offset: 99,
                    partition_max_bytes: 1 << 16,
                })],
            })],
        });
        let response = message!(ours::FetchResponse {
            responses: vec![message!(a::FetchableTopicResponse {
                topic: "telemetry".into(),
                partitions: vec![message!(a::PartitionData {
                    partition_index: 1,
                    high_watermark: 120,
                    last_stable_offset: 110,
                    log_start_offset: 10,
                    aborted_transactions: Some(Vec::new()),
                    records: Some(Bytes::from_static(b"batches")),
                })],
            })],
        });
        compare::<ours::FetchRequest, theirs::FetchRequest>(version, &request, &response);
    }
}

#[test]
fn list_offsets() {
    use ours::{list_offsets_request as q, list_offsets_response as a};
    for version in 1..=8 {
        let request = message!(ours::ListOffsetsRequest {
            replica_id: -1,
            topics: vec![message!(q::ListOffsetsTopic {
                name: "telemetry".into(),
                partitions: vec![message!(q::ListOffsetsPartition {
                    partition_index: 1,
                    timestamp: -2,
                })],
            })],
        });
        let response = message!(ours::ListOffsetsResponse {
            topics: vec![message!(a::ListOffsetsTopicResponse {
                name: "telemetry".into(),
                partitions: vec![message!(a::ListOffsetsPartitionResponse {
                    partition_index: 1,
                    timestamp: 1_700_000_000_000,
                    offset: 5,
                    leader_epoch: if version >= 4 { 2 } else { -1 },
                })],
            })],
        });
        compare::<ours::ListOffsetsRequest, theirs::ListOffsetsRequest>(
            version, &request, &response,
        );
    }
}

#[test]
fn metadata() {
    use ours::{metadata_request as q, metadata_response as a};
    for version in 0..=12 {
        let request = message!(ours::MetadataRequest {
            topics: Some(vec![message!(q::MetadataRequestTopic {
                name: Some("telemetry".into())
            })]),
        });
        let response = message!(ours::MetadataResponse {
            brokers: vec![message!(a::MetadataResponseBroker {
                host: "gateway-7.plant".into(),
                port: 9092,
            })],
            cluster_id: Some("AAECAwQFBgcICQoLDA0ODw".into()),
            controller_id: 0,
            topics: vec![message!(a::MetadataResponseTopic {
                name: Some("telemetry".into()),
                topic_id: ours::Uuid::from_bytes([7; 16]),
                partitions: vec![message!(a::MetadataResponsePartition {
                    leader_epoch: 3,
                    replica_nodes: vec![0],
                    isr_nodes: vec![0],
                })],
            })],
        });
        compare::<ours::MetadataRequest, theirs::MetadataRequest>(version, &request, &response);
    }
}

#[test]
fn api_versions() {
    use ours::api_versions_response as a;
    for version in 0..=4 {
        let request = message!(ours::ApiVersionsRequest {
            client_software_name: "headwater".into(),
            client_software_version: "0.1.0".into(),
        });
        let response = message!(ours::ApiVersionsResponse {
            api_keys: vec![message!(a::ApiVersion { api_key: 18, max_version: 4 })],
        });
        compare::<ours::ApiVersionsRequest, theirs::ApiVersionsRequest>(
            version, &request, &response,
        );
    }
}

#[test]
fn create_topics() {
    use ours::{create_topics_request as q, create_topics_response as a};
    for version in 2..=7 {
        let config = message!(q::CreatableTopicConfig {
            name: "retention.ms".into(),
            value: Some("1000".into()),
        });
        let request = message!(ours::CreateTopicsRequest {
            topics: vec![message!(q::CreatableTopic {
                name: "telemetry".into(),
                num_partitions: 4,
                replication_factor: 1,
                configs: vec![config],
            })],
            timeout_ms: 30_000,
            validate_only: true,
        });
        let config = message!(a::CreatableTopicConfigs {
            name: "retention.ms".into(),
            value: Some("1000".into()),
            config_source: 1,
        });
        let response = message!(ours::CreateTopicsResponse {
            topics: vec![message!(a::CreatableTopicResult {
                name: "telemetry".into(),
                topic_id: ours::Uuid::from_bytes([9; 16]),
                error_message: Some("text".into()),
                num_partitions: 4,
                replication_factor: 1,
                configs: Some(vec![config]),
            })],
        });
        compare::<ours::CreateTopicsRequest, theirs::CreateTopicsRequest>(
            version, &request, &response,
        );
    }
}

#[test]
fn delete_topics_and_create_partitions() {
    use ours::{create_partitions_request as cq, create_partitions_response as ca};
    use ours::{delete_topics_request as q, delete_topics_response as a};
    for version in 1..=6 {
        let by_state = vec![message!(q::DeleteTopicState { name: Some("telemetry".into()) })];
        let request = message!(ours::DeleteTopicsRequest {
            topics: if version >= 6 { by_state } else { Vec::new() },
            topic_names: if version >= 6 { Vec::new() } else { vec!["telemetry".into()] },
            timeout_ms: 1,
        });
        let response = message!(ours::DeleteTopicsResponse {
            responses: vec![message!(a::DeletableTopicResult {
                name: Some("telemetry".into()),
                error_code: 3,
                error_message: (version >= 5).then(|| "no such topic".into()),
            })],
        });
        compare::<ours::DeleteTopicsRequest, theirs::DeleteTopicsRequest>(
            version, &request, &response,
        );
    }
    for version in 0..=3 {
        let assignment = message!(cq::CreatePartitionsAssignment { broker_ids: vec![0] });
        let request = message!(ours::CreatePartitionsRequest {
            topics: vec![message!(cq::CreatePartitionsTopic {
                name: "telemetry".into(),
                count: 8,
                assignments: Some(vec![assignment]),
            })],
        });
        let response = message!(ours::CreatePartitionsResponse {
            results: vec![message!(ca::CreatePartitionsTopicResult {
                name: "telemetry".into(),
                error_code: 37,
                error_message: Some("fewer".into()),
            })],
        });
        compare::<ours::CreatePartitionsRequest, theirs::CreatePartitionsRequest>(
            version, &request, &response,
        );
    }
}

#[test]
fn describe_configs() {
    use ours::{describe_configs_request as q, describe_configs_response as a};
    for version in 1..=4 {
        let request = message!(ours::DescribeConfigsRequest {
            resources: vec![message!(q::DescribeConfigsResource {
                resource_type: 2,
                resource_name: "telemetry".into(),
                configuration_keys: Some(vec!["retention.ms".into()]),
            })],
        });
        let response = message!(ours::DescribeConfigsResponse {
            results: vec![message!(a::DescribeConfigsResult {
                resource_type: 2,
                resource_name: "telemetry".into(),
                configs: vec![message!(a::DescribeConfigsResourceResult {
                    name: "retention.ms".into(),
                    value: Some("1000".into()),
                    read_only: true,
                    config_source: 5,
                    config_type: if version >= 3 { 5 } else { 0 },
                    documentation: (version >= 3).then(|| "how long".into()),
                })],
            })],
        });
        compare::<ours::DescribeConfigsRequest, theirs::DescribeConfigsRequest>(
            version, &request, &response,
        );
    }
}

#[test]
fn offsets_of_epochs_and_producers() {
    use ours::{describe_producers_request as pq, describe_producers_response as pa};
    use ours::{offset_for_leader_epoch_request as q, offset_for_leader_epoch_response as a};
    for version in 2..=4 {
        let request = message!(ours::OffsetForLeaderEpochRequest {
            topics: vec![message!(q::OffsetForLeaderTopic {
                topic: "telemetry".into(),
                partitions: vec![message!(q::OffsetForLeaderPartition {
                    partition: 2,
                    current_leader_epoch: 4,
                    leader_epoch: 3,
                })],
            })],
        });
        let response = message!(ours::OffsetForLeaderEpochResponse {
            topics: vec![message!(a::OffsetForLeaderTopicResult {
                topic: "telemetry".into(),
                partitions: vec![message!(a::EpochEndOffset {
                    partition: 2,
                    leader_epoch: 3,
                    end_offset: 77,
                })],
            })],
        });
        compare::<ours::OffsetForLeaderEpochRequest, theirs::OffsetForLeaderEpochRequest>(
            version, &request, &response,
        );
    }
    let request = message!(ours::DescribeProducersRequest {
        topics: vec![message!(pq::TopicRequest {
            name: "telemetry".into(),
            partition_indexes: vec![0, 1],
        })],
    });
    let response = message!(ours::DescribeProducersResponse {
        topics: vec![message!(pa::TopicResponse {
            name: "telemetry".into(),
            partitions: vec![message!(pa::PartitionResponse {
                active_producers: vec![message!(pa::ProducerState {
                    producer_id: 4000,
                    last_sequence: 9,
                })],
            })],
        })],
    });
    compare::<ours::DescribeProducersRequest, theirs::DescribeProducersRequest>(
        0, &request, &response,
    );
}

#[test]
fn coordinators_producer_ids_the_cluster_and_sasl() {
    use ours::{describe_cluster_response as ca, find_coordinator_response as a};
    for version in 0..=4 {
        let request = message!(ours::FindCoordinatorRequest {
            key: if version < 4 { "group".into() } else { "".into() },
            coordinator_keys: if version < 4 { Vec::new() } else { vec!["group".into()] },
        });
        let refused = message!(a::Coordinator {
            key: "group".into(),
            node_id: -1,
            port: -1,
            error_code: 35,
            error_message: Some("not served".into()),
        });
        let response = if version < 4 {
            message!(ours::FindCoordinatorResponse { error_code: 35, node_id: -1, port: -1 })
        } else {
            message!(ours::FindCoordinatorResponse { coordinators: vec![refused] })
        };
        compare::<ours::FindCoordinatorRequest, theirs::FindCoordinatorRequest>(
            version, &request, &response,
        );
        let request = message!(ours::InitProducerIdRequest { transaction_timeout_ms: i32::MAX });
        let response = message!(ours::InitProducerIdResponse { producer_id: 4000 });
        compare::<ours::InitProducerIdRequest, theirs::InitProducerIdRequest>(
            version, &request, &response,
        );
    }
    for version in 0..=1 {
        let request =
            message!(ours::DescribeClusterRequest { include_cluster_authorized_operations: true });
        let response = message!(ours::DescribeClusterResponse {
            cluster_id: "AAECAwQFBgcICQoLDA0ODw".into(),
            brokers: vec![message!(ca::DescribeClusterBroker { host: "h".into(), port: 1 })],
        });
        compare::<ours::DescribeClusterRequest, theirs::DescribeClusterRequest>(
            version, &request, &response,
        );
        let request = message!(ours::SaslHandshakeRequest { mechanism: "PLAIN".into() });
        let response = message!(ours::SaslHandshakeResponse { error_code: 34 });
        compare::<ours::SaslHandshakeRequest, theirs::SaslHandshakeRequest>(
            version, &request, &response,
        );
    }
}
