//! ApiVersions, Metadata, topics and their settings.

use crate::harness::*;
use headwater_kafka::message;
use headwater_kafka::wire::messages::*;
use headwater_kafka::wire::{ApiKey, ErrorCode, Limits, decode_api_versions_response};

fn named(topics: &[&str], may_create: bool) -> MetadataRequest {
    let topics = topics.iter().map(|name| {
        message!(metadata_request::MetadataRequestTopic { name: Some((*name).into()) })
    });
    message!(MetadataRequest {
        topics: Some(topics.collect()),
        allow_auto_topic_creation: may_create,
    })
}

fn codes(response: &MetadataResponse) -> Vec<i16> {
    response.topics.iter().map(|topic| topic.error_code).collect()
}

#[test]
fn versions_are_listed_and_an_unknown_one_is_answered_in_version_0() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let request = message!(ApiVersionsRequest {
            client_software_name: "raw".into(),
            client_software_version: "1".into(),
        });
        for version in 0..=4 {
            let response = client.call(version, &request).await;
            assert_eq!(response.error_code, 0);
            let of = |key: ApiKey| {
                let found = response.api_keys.iter().find(|api| api.api_key == key.0).unwrap();
                (found.min_version, found.max_version)
            };
            assert_eq!(of(ApiKey::PRODUCE), (0, 11));
            assert_eq!(of(ApiKey::FETCH), (4, 12));
            assert_eq!(of(ApiKey::API_VERSIONS), (0, 4));
        }
        let correlation = client.send(5, &request).await;
        let frame = client.frame().await.unwrap();
        let limits = Limits::for_frames_of(1 << 20);
        let refused = decode_api_versions_response(frame, correlation, 5, limits).unwrap();
        assert_eq!(refused.error_code, 35);
        assert_eq!(refused.api_keys.len(), 1);
        // The connection goes on, and software names are checked.
        let response = client.call(3, &ApiVersionsRequest::default()).await;
        assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    });
}

#[test]
fn metadata_makes_topics_only_where_that_is_allowed() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let no = client.call(12, &named(&["new", "a b", "__headwater_ledger"], false)).await;
        assert_eq!(codes(&no), [3, 17, 3]);
        let yes = client.call(12, &named(&["new", "never-this", "__headwater_x"], true)).await;
        assert_eq!(codes(&yes), [0, 3, 3]);
        let topic = &yes.topics[0];
        assert_eq!(topic.partitions.len(), 2);
        assert!(!topic.topic_id.is_zero());
        assert_eq!((yes.brokers[0].host.as_str(), yes.brokers[0].port), ("gateway.test", 19092));
        assert_eq!(yes.cluster_id.as_deref().map(str::len), Some(22));
        // By its id, and a wrong id.
        let by_id = [topic.topic_id, Uuid::from_bytes([1; 16])].map(|id| {
            message!(metadata_request::MetadataRequestTopic { topic_id: id, name: None })
        });
        let hidden = harness.log.topic("__headwater_ledger").unwrap();
        let hidden = message!(metadata_request::MetadataRequestTopic {
            topic_id: Uuid::from_bytes(*hidden.id().as_bytes()),
            name: None,
        });
        let by_id = by_id.into_iter().chain([hidden]).collect();
        let found = client.call(12, &message!(MetadataRequest { topics: Some(by_id) })).await;
        assert_eq!(found.topics[0].name.as_deref(), Some("new"));
        assert_eq!(codes(&found), [0, 100, 100]);
    });
}

#[test]
fn all_topics_are_null_but_in_version_0() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        for version in 0..=12 {
            let all = message!(MetadataRequest {
                topics: if version == 0 { Some(Vec::new()) } else { None },
            });
            let names: Vec<_> = client.call(version, &all).await.topics;
            let names: Vec<_> = names.iter().map(|t| t.name.as_deref().unwrap()).collect();
            assert_eq!(names, ["c", "t"], "version {version}");
            if version > 0 {
                let none = message!(MetadataRequest { topics: Some(Vec::new()) });
                assert!(client.call(version, &none).await.topics.is_empty());
            }
        }
    });
}

fn create(name: &str, partitions: i32, replicas: i16) -> create_topics_request::CreatableTopic {
    message!(create_topics_request::CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: replicas,
    })
}

#[test]
fn topics_are_created_checked_and_refused_one_by_one() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let mut odd = create("odd", 1, 1);
        odd.configs.push(message!(create_topics_request::CreatableTopicConfig {
            name: "unclean.leader.election.enable".into(),
            value: Some("true".into()),
        }));
        let mut short = create("short", -1, -1);
        short.configs.push(message!(create_topics_request::CreatableTopicConfig {
            name: "retention.ms".into(),
            value: Some("60000".into()),
        }));
        let topics = vec![
            create("made", 3, 1),
            create("t", 1, 1),
            create("no/name", 1, 1),
            create("__headwater_mine", 1, 1),
            create("none", 0, 1),
            create("three", 1, 3),
            odd,
            short,
            create("twice", 1, 1),
            create("twice", 1, 1),
            create("fixed", 1, 1),
        ];
        let expected = [0, 36, 17, 17, 37, 38, 40, 0, 42, 42, 44];
        for validate_only in [true, false] {
            let request = message!(CreateTopicsRequest {
                topics: topics.clone(),
                timeout_ms: 10_000,
                validate_only: validate_only,
            });
            let response = client.call(7, &request).await;
            let found: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(found, expected, "validate_only {validate_only}");
            assert_eq!(response.topics[7].num_partitions, 2, "the default");
            assert_eq!(harness.log.topic("made").is_some(), !validate_only);
        }
        let made = harness.log.topic("short").unwrap();
        assert_eq!(made.settings().retention_ms, Some(60_000));
        let resource = message!(describe_configs_request::DescribeConfigsResource {
            resource_type: 2,
            resource_name: "short".into(),
            configuration_keys: Some(vec!["retention.ms".into(), "segment.bytes".into()]),
        });
        let asked = message!(DescribeConfigsRequest { resources: vec![resource] });
        for version in 1..=4 {
            let response = client.call(version, &asked).await;
            let configs = &response.results[0].configs;
            let shown: Vec<_> = configs
                .iter()
                .map(|c| (c.name.as_str(), c.value.as_deref().unwrap(), c.config_source))
                .collect();
            assert_eq!(shown, [("retention.ms", "60000", 1), ("segment.bytes", "16777216", 5)]);
        }
    });
}

#[test]
fn partitions_are_added_and_topics_deleted() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let grow = |name: &str, count| {
            message!(CreatePartitionsRequest {
                topics: vec![message!(create_partitions_request::CreatePartitionsTopic {
                    name: name.into(),
                    count: count,
                    assignments: None,
                })],
                timeout_ms: 10_000,
            })
        };
        for (name, count, expected) in [("t", 5, 0), ("t", 5, 37), ("t", 1, 37), ("missing", 2, 3)]
        {
            let response = client.call(3, &grow(name, count)).await;
            assert_eq!(response.results[0].error_code, expected, "{name} {count}");
        }
        assert_eq!(client.produce("t", 4, &records(&["a"])).await, (0, 0));
        let names = message!(DeleteTopicsRequest {
            topic_names: vec!["t".into(), "missing".into()],
            timeout_ms: 10_000,
        });
        let response = client.call(5, &names).await;
        let found: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(found, [0, 3]);
        assert_eq!(client.produce("t", 4, &records(&["a"])).await, (3, -1));
    });
}

#[test]
fn the_node_is_its_own_coordinator_and_knows_no_sasl() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        for version in 0..=4 {
            let old = version < 4;
            let request = message!(FindCoordinatorRequest {
                key: if old { "g".into() } else { "".into() },
                coordinator_keys: if old { Vec::new() } else { vec!["g".into()] },
            });
            let response = client.call(version, &request).await;
            let found = if old {
                (response.error_code, response.node_id, response.port)
            } else {
                let found = &response.coordinators[0];
                (found.error_code, found.node_id, found.port)
            };
            assert_eq!(found, (0, 0, 19092));
        }
        let sasl = message!(SaslHandshakeRequest { mechanism: "PLAIN".into() });
        let response = client.call(1, &sasl).await;
        assert_eq!(response.error_code, ErrorCode::IllegalSaslState.code());
        let cluster = client.call(1, &DescribeClusterRequest::default()).await;
        assert_eq!((cluster.brokers.len(), cluster.controller_id), (1, 0));
        assert_eq!(cluster.cluster_id.as_str(), harness.door.cluster_id());
    });
}
