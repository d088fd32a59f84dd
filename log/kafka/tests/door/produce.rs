//! Produce: order, ack points, refusals.

use crate::harness::*;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_kafka::message;
use headwater_kafka::wire::messages::*;
use headwater_kafka::wire::{ErrorCode, FrameReader, Limits, decode_response, encode_request};
use headwater_log::{PartitionId, batch};
use tokio::io::AsyncWriteExt;

#[test]
fn what_was_acknowledged_is_synced_and_reads_back() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        for version in 3..=11 {
            let batch = records(&["a", "b", "c"]);
            let response = client.call(version, &produce("t", 1, &batch, -1)).await;
            let expected = i64::from(version - 3) * 3;
            assert_eq!(outcome(&response), (0, expected), "version {version}");
            let topic = harness.log.topic("t").unwrap();
            let log = topic.partition(PartitionId::new(1).unwrap()).unwrap();
            let positions = log.positions();
            assert_eq!(positions.synced.get(), expected + 3, "acknowledged before the sync");
            assert_eq!(positions.high_watermark.get(), expected + 3);
        }
    });
}

#[test]
fn responses_come_in_the_order_of_the_requests() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let mut sent = Vec::new();
        for number in 0..40 {
            // Partitions and acks differ, and a refused one is known at once: still in order.
            let topic = if number % 7 == 3 { "missing" } else { "t" };
            let request =
                produce(topic, number % 2, &records(&["x"]), if number % 3 == 0 { 1 } else { -1 });
            sent.push((client.send(9, &request).await, topic));
        }
        let metadata = client.send(9, &message!(MetadataRequest { topics: None })).await;
        let mut next = 0;
        for (correlation, topic) in sent {
            let response = client.receive::<ProduceRequest>(9, correlation).await;
            let code = outcome(&response).0;
            assert_eq!(code, if topic == "missing" { 3 } else { 0 });
            next += i32::from(code == 0);
        }
        assert_eq!(next, 34);
        let metadata = client.receive::<MetadataRequest>(9, metadata).await;
        assert_eq!(metadata.topics.len(), 2);
    });
}

#[test]
fn each_partition_is_refused_by_itself() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let good = records(&["a"]);
        let mut bad_crc = BytesMut::from(&good[..]);
        *bad_crc.last_mut().unwrap() ^= 1;
        let data = [
            (0, Some(good.clone())),
            (1, Some(bad_crc.freeze())),
            (2, Some(good.clone())),
            (0, None),
            (0, Some([&good[..], &good[..]].concat().into())),
            (1, Some(good)),
        ];
        let partitions = data.map(|(index, records)| {
            message!(produce_request::PartitionProduceData { index: index, records: records })
        });
        let request = message!(ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![message!(produce_request::TopicProduceData {
                name: "t".into(),
                partition_data: partitions.into(),
            })],
        });
        let response = client.call(9, &request).await;
        let found: Vec<_> = response.responses[0]
            .partition_responses
            .iter()
            .map(|p| (p.error_code, p.base_offset, p.error_message.is_some()))
            .collect();
        let expected = [
            (0, 0, false),
            (ErrorCode::CorruptMessage.code(), -1, true),
            (ErrorCode::UnknownTopicOrPartition.code(), -1, true),
            (ErrorCode::InvalidRecord.code(), -1, true),
            (ErrorCode::InvalidRecord.code(), -1, true),
            (0, 0, false),
        ];
        assert_eq!(found, expected);
        let errors = harness.door.figures().errors;
        assert!(errors.contains(&("INVALID_RECORD", 2)), "{errors:?}");
    });
}

#[test]
fn wrong_counts_marks_and_sizes_are_refused() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let broken = |at: usize, bytes: &'static [u8]| {
            batch_by(&["a", "b"], -1, -1, -1, |b| b[at..at + bytes.len()].copy_from_slice(bytes))
        };
        let long = "x".repeat(1 << 20);
        let cases = [
            ("count", broken(57, &[0, 0, 0, 1]), ErrorCode::InvalidRecord),
            ("last offset delta", broken(23, &[0, 0, 0, 9]), ErrorCode::InvalidRecord),
            ("transactional", broken(21, &[0, 0x10]), ErrorCode::InvalidTxnState),
            ("control", broken(21, &[0, 0x20]), ErrorCode::InvalidRecord),
            ("made here", batch_by(&["a"], -2, 0, 0, |_| {}), ErrorCode::InvalidRecord),
            ("too large", records(&[&long]), ErrorCode::MessageTooLarge),
        ];
        for (name, batch, expected) in cases {
            assert_eq!(client.produce("t", 0, &batch).await, (expected.code(), -1), "{name}");
        }
        let mut request = produce("t", 0, &records(&["a"]), -1);
        request.transactional_id = Some("tx".into());
        let refused = client.call(9, &request).await;
        assert_eq!(outcome(&refused).0, ErrorCode::InvalidTxnState.code());
        let refused = client.call(9, &produce("t", 0, &records(&["a"]), 2)).await;
        assert_eq!(outcome(&refused).0, ErrorCode::InvalidRequiredAcks.code());
        // Nothing of all that was stored.
        assert_eq!(client.produce("t", 0, &records(&["a"])).await, (0, 0));
    });
}

#[test]
fn a_timeout_ends_the_wait_for_acks_all_only() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let mut request = produce("t", 0, &records(&["a"]), 1);
        request.timeout_ms = 0;
        assert_eq!(outcome(&client.call(9, &request).await), (0, 0));
        request.acks = -1;
        // Stored or late, and said so: never a success before the sync.
        let (code, _) = outcome(&client.call(9, &request).await);
        assert!(code == 0 || code == ErrorCode::RequestTimedOut.code(), "{code}");
    });
}

#[test]
fn headwaters_own_topics_take_nothing_from_clients() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let found = client.produce("__headwater_ledger", 0, &records(&["a"])).await;
        assert_eq!(found, (ErrorCode::UnknownTopicOrPartition.code(), -1));
    });
}

#[test]
fn a_repeated_sequence_is_stored_once() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let init = message!(InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
        });
        let first = client.call(4, &init).await;
        let second = client.call(0, &init).await;
        assert_eq!((first.error_code, first.producer_epoch), (0, 0));
        assert_ne!(first.producer_id, second.producer_id);
        let id = first.producer_id;
        let batch = sequenced(&["a", "b"], id, 0);
        assert_eq!(client.produce("t", 0, &batch).await, (0, 0));
        assert_eq!(client.produce("t", 0, &batch).await, (0, 0), "a duplicate");
        assert_eq!(client.produce("t", 0, &sequenced(&["c"], id, 2)).await, (0, 2));
        let gap = client.produce("t", 0, &sequenced(&["d"], id, 9)).await;
        assert_eq!(gap, (ErrorCode::OutOfOrderSequenceNumber.code(), -1));
        let asked = message!(DescribeProducersRequest {
            topics: vec![message!(describe_producers_request::TopicRequest {
                name: "t".into(),
                partition_indexes: vec![0],
            })],
        });
        let known = client.call(0, &asked).await;
        let producer = &known.topics[0].partitions[0].active_producers[0];
        assert_eq!((producer.producer_id, producer.last_sequence), (id, 2));
        let mut transactional = init;
        transactional.transactional_id = Some("tx".into());
        let refused = client.call(4, &transactional).await;
        assert_eq!(refused.error_code, ErrorCode::TransactionalIdAuthorizationFailed.code());
    });
}

#[test]
fn a_producer_without_answers_is_told_by_the_end() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        client.send(9, &produce("t", 0, &records(&["a"]), 0)).await;
        // The next response is that of the next request.
        assert_eq!(client.produce("t", 0, &records(&["b"])).await, (0, 1));
        client.send(9, &produce("missing", 0, &records(&["a"]), 0)).await;
        assert!(client.is_closed().await);
    });
}

#[test]
fn keyless_records_are_named_where_the_newest_per_key_is_kept() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        assert_eq!(client.produce("c", 0, &records(&["a"])).await, (0, 0));
        let mut keyless = BytesMut::from(&records(&["", ""])[..61]);
        keyless.put_slice(b"\x0c\0\0\0\x01\x00\0\x0c\0\x02\x02\x01\x00\0");
        let length = i32::try_from(keyless.len() - 12).unwrap();
        keyless[8..12].copy_from_slice(&length.to_be_bytes());
        batch::readdress(&mut keyless, -1, -1, -1);
        let response = client.call(9, &produce("c", 0, &keyless.freeze(), -1)).await;
        assert_eq!(outcome(&response).0, ErrorCode::InvalidRecord.code());
        let by_record = &response.responses[0].partition_responses[0].record_errors;
        assert_eq!(by_record.iter().map(|r| r.batch_index).collect::<Vec<_>>(), [0, 1]);
    });
}

#[test]
fn versions_before_3_are_answered_in_their_own_form() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        for version in 0..=2_i16 {
            let mut frame = BytesMut::new();
            frame.put_i32(0);
            frame.put_i16(0);
            frame.put_i16(version);
            frame.put_i32(50 + i32::from(version));
            frame.put_i16(-1); // client id
            frame.put_i16(-1); // acks
            frame.put_i32(1_000);
            frame.put_i32(1);
            frame.put_i16(1);
            frame.put_slice(b"t");
            frame.put_i32(1);
            frame.put_i32(0);
            frame.put_i32(3);
            frame.put_slice(b"old");
            let length = u32::try_from(frame.len() - 4).unwrap();
            frame[..4].copy_from_slice(&length.to_be_bytes());
            client.stream.write_all(&frame).await.unwrap();
            let mut answer: Bytes = client.frame().await.unwrap();
            assert_eq!(answer.get_i32(), 50 + i32::from(version));
            assert_eq!((answer.get_i32(), answer.get_i16(), answer.get_u8()), (1, 1, b't'));
            assert_eq!((answer.get_i32(), answer.get_i32()), (1, 0));
            assert_eq!((answer.get_i16(), answer.get_i64()), (35, -1));
            let rest = [0, 4, 12][usize::try_from(version).unwrap()];
            assert_eq!(answer.len(), rest, "version {version}");
        }
    });
}

#[test]
fn a_stopping_process_answers_what_it_has_taken() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let correlation = client.send(9, &produce("t", 0, &records(&["a"]), -1)).await;
        // One more answered request makes sure that the first was taken.
        let second = client.send(9, &produce("t", 0, &records(&["b"]), -1)).await;
        client.receive::<ProduceRequest>(9, correlation).await;
        harness.stop();
        let second = client.receive::<ProduceRequest>(9, second).await;
        assert_eq!(outcome(&second), (0, 1));
        assert!(client.is_closed().await);
    });
}

#[test]
fn a_full_append_path_slows_a_producer_and_loses_nothing() {
    run(async {
        let harness = Harness::new();
        let client = harness.connect();
        // Four times what may be uncommitted, sent without waiting for an answer.
        let large = "x".repeat(1 << 19);
        let mut frames = BytesMut::new();
        for correlation in 0..128 {
            let request = produce("t", 0, &records(&[&large]), -1);
            encode_request(&mut frames, correlation, None, 9, &request).unwrap();
        }
        let (mut from, mut to) = tokio::io::split(client.stream);
        let receive = async {
            let mut reader = FrameReader::new(FRAME_BYTES_MAX);
            for correlation in 0..128 {
                let frame = reader.frame(&mut from).await.unwrap().unwrap();
                let limits = Limits::for_frames_of(FRAME_BYTES_MAX);
                let response =
                    decode_response::<ProduceRequest>(frame, correlation, 9, limits).unwrap();
                assert_eq!(outcome(&response), (0, i64::from(correlation)));
            }
        };
        let send = async { to.write_all(&frames).await.unwrap() };
        let both = async { tokio::join!(receive, send) };
        tokio::time::timeout(std::time::Duration::from_secs(60), both).await.unwrap();
    });
}
