//! Fetch and ListOffsets: whole batches, long polls, limits, epochs.

use crate::harness::*;
use bytes::Bytes;
use headwater_kafka::message;
use headwater_kafka::wire::ErrorCode;
use headwater_kafka::wire::messages::*;
use headwater_log::batch::marker::{EndTransaction, TransactionMarker};
use headwater_log::batch::{self, BatchHeader};
use std::time::Duration;
use tokio::time::Instant;

fn fetch(offset: i64, wait_ms: i32, min_bytes: i32, max_bytes: i32) -> FetchRequest {
    message!(FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: min_bytes,
        max_bytes: max_bytes,
        topics: vec![message!(fetch_request::FetchTopic {
            topic: "t".into(),
            partitions: vec![message!(fetch_request::FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: max_bytes,
            })],
        })],
    })
}

fn answer(response: &FetchResponse) -> &fetch_response::PartitionData {
    assert_eq!((response.error_code, response.session_id), (0, 0));
    &response.responses[0].partitions[0]
}

/// Base offsets and record counts of the batches in a response.
fn batches(response: &FetchResponse) -> Vec<(i64, i32)> {
    let mut rest = answer(response).records.clone().unwrap();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let header = batch::verify(&rest).expect("whole and undamaged");
        found.push((header.base_offset, header.record_count));
        rest = rest.slice(header.size_bytes()..);
    }
    found
}

async fn filled(harness: &Harness) -> Raw {
    let mut client = harness.connect();
    for values in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
        client.produce("t", 0, &records(values)).await;
    }
    client
}

#[test]
fn whole_batches_from_the_one_that_holds_the_offset() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        for version in 4..=12 {
            let all = client.call(version, &fetch(0, 0, 1, 1 << 20)).await;
            assert_eq!(batches(&all), [(0, 3), (3, 1), (4, 2)], "version {version}");
            let partition = answer(&all);
            assert_eq!((partition.high_watermark, partition.last_stable_offset), (6, 6));
            assert!(partition.aborted_transactions.is_none());
            let middle = client.call(version, &fetch(1, 0, 1, 1 << 20)).await;
            assert_eq!(batches(&middle), [(0, 3), (3, 1), (4, 2)], "version {version}");
            let mut committed = fetch(5, 0, 1, 1 << 20);
            committed.isolation_level = 1;
            let tail = client.call(version, &committed).await;
            assert_eq!(batches(&tail), [(4, 2)]);
            assert_eq!(answer(&tail).aborted_transactions.as_deref(), Some(&[][..]));
        }
    });
}

#[test]
fn a_stored_batch_is_the_producers_but_for_offset_and_epoch() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        client.produce("t", 0, &records(&["x"])).await;
        let sent = records(&["same", "bytes"]);
        client.produce("t", 0, &sent).await;
        let found = client.call(12, &fetch(1, 0, 1, 1 << 20)).await;
        let found = answer(&found).records.clone().unwrap();
        assert_eq!(BatchHeader::parse(&found).unwrap().base_offset, 1);
        assert_eq!(found[16..], sent[16..], "magic, CRC and all after it");
    });
}

#[test]
fn at_least_one_batch_whatever_the_limit() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        let one = client.call(12, &fetch(0, 0, 1, 1)).await;
        assert_eq!(batches(&one), [(0, 3)]);
        let two_bytes = i32::try_from(records(&["a", "b", "c"]).len() + records(&["d"]).len());
        let two = client.call(12, &fetch(0, 0, 1, two_bytes.unwrap())).await;
        assert_eq!(batches(&two), [(0, 3), (3, 1)]);
        // A second partition gives nothing when the first has used the room up.
        client.produce("t", 1, &records(&["other"])).await;
        let mut both = fetch(0, 0, 1, 1);
        both.topics[0].partitions.push(message!(fetch_request::FetchPartition {
            partition: 1,
            partition_max_bytes: 1 << 20,
        }));
        let both = client.call(12, &both).await;
        assert_eq!(batches(&both), [(0, 3)]);
        assert_eq!(both.responses[0].partitions[1].records, Some(Bytes::new()));
    });
}

#[test]
fn a_long_poll_ends_with_the_first_record() {
    run(async {
        let harness = Harness::new();
        let mut consumer = harness.connect();
        let mut producer = harness.connect();
        let begun = Instant::now();
        let poll = consumer.send(12, &fetch(0, 60_000, 1, 1 << 20)).await;
        producer.produce("t", 0, &records(&["a"])).await;
        let found = consumer.receive::<FetchRequest>(12, poll).await;
        assert_eq!(batches(&found), [(0, 1)]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_long_poll_waits_for_its_bytes_and_for_its_time() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        let begun = Instant::now();
        let late = client.call(12, &fetch(0, 200, 1 << 20, 1 << 20)).await;
        assert!(begun.elapsed() >= Duration::from_millis(200), "min_bytes was not waited for");
        assert_eq!(batches(&late), [(0, 3), (3, 1), (4, 2)], "what there is comes at the end");
        let nothing = client.call(12, &fetch(6, 50, 1, 1 << 20)).await;
        assert_eq!(batches(&nothing), []);
    });
}

#[test]
fn offsets_and_epochs_outside_are_told_apart() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        let epoch = harness.log.topic("t").unwrap().partitions()[0].positions().epoch.get();
        let cases = [
            (0, 7, -1, ErrorCode::OffsetOutOfRange),
            (0, -5, -1, ErrorCode::OffsetOutOfRange),
            (0, 0, epoch + 1, ErrorCode::UnknownLeaderEpoch),
            (
                0,
                0,
                epoch - 1,
                if epoch > 0 { ErrorCode::FencedLeaderEpoch } else { ErrorCode::None },
            ),
            (7, 0, -1, ErrorCode::UnknownTopicOrPartition),
            (0, 0, epoch, ErrorCode::None),
        ];
        for (partition, offset, current, expected) in cases {
            let mut request = fetch(offset, 60_000, 1, 1 << 20);
            request.topics[0].partitions[0].partition = partition;
            request.topics[0].partitions[0].current_leader_epoch = current;
            // An error does not wait for the poll's end.
            let response = client.call(12, &request).await;
            assert_eq!(answer(&response).error_code, expected.code(), "{offset} {current}");
        }
        let mut session = fetch(0, 0, 1, 1);
        (session.session_id, session.session_epoch) = (77, 1);
        let refused = client.call(12, &session).await;
        assert_eq!(refused.error_code, ErrorCode::FetchSessionIdNotFound.code());
    });
}

#[test]
fn offsets_are_listed_by_place_and_by_time() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        let base = 1_700_000_000_000;
        // (asked, offset, timestamp)
        let cases = [
            (-1, 6, -1),
            (-2, 0, -1),
            (0, 0, base),
            (base, 0, base),
            (base + 1, 1, base + 1),
            (base + 2, 2, base + 2),
            (base + 3, -1, -1),
            (-3, 2, base + 2),
            (-4, 0, -1),
        ];
        for (asked, offset, timestamp) in cases {
            for version in if asked < -2 { 8..=8 } else { 1..=8 } {
                let request = message!(ListOffsetsRequest {
                    replica_id: -1,
                    topics: vec![message!(list_offsets_request::ListOffsetsTopic {
                        name: "t".into(),
                        partitions: vec![message!(list_offsets_request::ListOffsetsPartition {
                            timestamp: asked,
                        })],
                    })],
                });
                let response = client.call(version, &request).await;
                let found = &response.topics[0].partitions[0];
                assert_eq!(
                    (found.error_code, found.offset, found.timestamp),
                    (0, offset, timestamp),
                    "{asked} at version {version}"
                );
            }
        }
    });
}

#[test]
fn an_epoch_ends_where_the_log_ends() {
    run(async {
        let harness = Harness::new();
        let mut client = filled(&harness).await;
        let epoch = harness.log.topic("t").unwrap().partitions()[0].positions().epoch.get();
        for version in 2..=4 {
            let request = message!(OffsetForLeaderEpochRequest {
                topics: vec![message!(offset_for_leader_epoch_request::OffsetForLeaderTopic {
                    topic: "t".into(),
                    partitions: vec![message!(
                        offset_for_leader_epoch_request::OffsetForLeaderPartition {
                            leader_epoch: epoch,
                        }
                    )],
                })],
            });
            let response = client.call(version, &request).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!((found.error_code, found.leader_epoch, found.end_offset), (0, epoch, 6));
        }
    });
}

#[test]
fn what_memory_no_longer_holds_is_read_from_the_files() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        // Twice what the tail keeps in memory.
        let large = "x".repeat(1 << 19);
        for number in 0..32 {
            assert_eq!(client.produce("t", 0, &records(&[&large])).await, (0, number));
        }
        let log = harness.log.topic("t").unwrap().partitions()[0].clone();
        assert!(!log.is_in_memory(headwater_log::Offset::ZERO), "the test reads from memory");
        let mut next = 0;
        while next < 32 {
            let found = client.call(12, &fetch(next, 0, 1, 4 << 20)).await;
            let found = batches(&found);
            let fit = usize::try_from(32 - next).unwrap().min(7);
            assert!(found.len() >= fit, "{} batches in 4 MiB", found.len());
            for (base, count) in found {
                assert_eq!((base, count), (next, 1));
                next += 1;
            }
        }
    });
}

/// KIP-98: below the last stable offset, with what is to be left out; others see all below the high watermark.
#[test]
fn readers_of_committed_data_are_told_what_was_aborted() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        client.produce("t", 0, &records(&["before"])).await;
        let log = harness.log.topic("t").unwrap().partitions()[0].clone();
        let mut transactional = bytes::BytesMut::from(&sequenced(&["x", "y"], 77, 0)[..]);
        transactional[22] |= 0x10;
        let crc = crc_fast::crc32_iscsi(&transactional[21..]);
        transactional[17..21].copy_from_slice(&crc.to_be_bytes());
        log.append_batch(transactional).unwrap();
        client.produce("t", 0, &records(&["behind"])).await;
        let committed = |offset| {
            let mut request = fetch(offset, 0, 1, 1 << 20);
            request.isolation_level = 1;
            request
        };
        let open = client.call(12, &committed(0)).await;
        assert_eq!(batches(&open), [(0, 1)]);
        assert_eq!((answer(&open).high_watermark, answer(&open).last_stable_offset), (4, 1));
        let found = client.call(12, &fetch(0, 0, 1, 1 << 20)).await;
        assert_eq!(batches(&found), [(0, 1), (1, 2), (3, 1)], "others read on");
        let marker = TransactionMarker {
            producer_id: 77,
            producer_epoch: 0,
            end: EndTransaction { commit: false, coordinator_epoch: 2 },
            bumps_epoch: false,
            timestamp_ms: 5,
        };
        log.append_marker(&marker).unwrap();
        client.produce("t", 0, &records(&["last"])).await;
        for version in 4..=12 {
            let ended = client.call(version, &committed(0)).await;
            assert_eq!(batches(&ended), [(0, 1), (1, 2), (3, 1), (4, 1), (5, 1)]);
            assert_eq!(answer(&ended).last_stable_offset, 6);
            let aborted = answer(&ended).aborted_transactions.as_ref().unwrap();
            let aborted: Vec<_> =
                aborted.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect();
            assert_eq!(aborted, [(77, 1)], "version {version}");
            let behind = client.call(version, &committed(5)).await;
            assert_eq!(answer(&behind).aborted_transactions.as_deref(), Some(&[][..]));
        }
        let asked = message!(DescribeProducersRequest {
            topics: vec![message!(describe_producers_request::TopicRequest {
                name: "t".into(),
                partition_indexes: vec![0],
            })],
        });
        let told = client.call(0, &asked).await;
        let producer = &told.topics[0].partitions[0].active_producers[0];
        assert_eq!((producer.producer_id, producer.last_sequence), (77, 1));
        assert_eq!((producer.coordinator_epoch, producer.current_txn_start_offset), (2, -1));
    });
}
