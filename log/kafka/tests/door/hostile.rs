//! Hostile input: it ends its own connection, and nothing else.

use crate::harness::*;
use bytes::{BufMut, BytesMut};
use headwater_kafka::message;
use headwater_kafka::server::DoorSettings;
use headwater_kafka::wire::ErrorCode;
use headwater_kafka::wire::messages::*;
use headwater_log::batch::compression::{Codec, Compression, compress};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// A frame of a request head and whatever follows.
fn frame(key: i16, version: i16, tags: bool, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    if tags {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

async fn is_refused(harness: &Harness, bytes: &[u8]) -> bool {
    let before = harness.door.figures().connections_malformed;
    let mut client = harness.connect();
    // The server may be gone before all is written.
    let _ = client.stream.write_all(bytes).await;
    client.stream.shutdown().await.ok();
    let closed = client.is_closed().await;
    // The count follows the close in the server's task.
    while harness.door.figures().connections_open > 0 {
        tokio::task::yield_now().await;
    }
    closed && harness.door.figures().connections_malformed == before + 1
}

#[test]
fn lengths_beyond_reason_close_the_connection() {
    run(async {
        let harness = Harness::new();
        let huge = [0x7f, 0xff, 0xff, 0xff];
        let mut array = vec![0xff, 0xff]; // transactional id: null
        array.extend_from_slice(&[0, 1, 0, 0, 0, 1]);
        array.extend_from_slice(&huge);
        let cases: Vec<(&str, BytesMut)> = vec![
            ("a frame of 2 GB", BytesMut::from(&huge[..])),
            ("a negative frame", BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..])),
            ("Metadata of 2^31-1 topics", frame(3, 0, false, &huge)),
            ("Produce of 2^31-1 topics", frame(0, 3, false, &array)),
            ("compact array of 2^32-1", frame(3, 12, true, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
            (
                "a client id of 32767 bytes",
                BytesMut::from(&b"\0\0\0\x0a\0\x03\0\0\0\0\0\x01\x7f\xff"[..]),
            ),
            ("an unknown api", frame(999, 0, false, &[])),
            ("a negative api", frame(-3, 0, false, &[])),
            ("a version to come", frame(1, 18, true, &[])),
            ("a version gone", frame(1, 3, false, &[])),
            ("bytes after the end", frame(3, 0, false, &[0, 0, 0, 0, 1])),
            ("a Fetch above a mebibyte", {
                let mut big = BytesMut::from(&b"\0\x20\0\0\0\x01\0\x0c"[..]);
                big.put_bytes(0, 100);
                big
            }),
        ];
        for (name, bytes) in cases {
            assert!(is_refused(&harness, &bytes).await, "{name}");
        }
        let mut client = harness.connect();
        assert_eq!(client.produce("t", 0, &records(&["alive"])).await, (0, 0));
    });
}

#[test]
fn requests_cut_anywhere_and_garbage_never_hurt() {
    run(async {
        let harness = Harness::new();
        let whole = {
            let mut bytes = BytesMut::new();
            let request = produce("t", 0, &records(&["a"]), 0);
            headwater_kafka::wire::encode_request(&mut bytes, 1, None, 9, &request).unwrap();
            bytes
        };
        for cut in 1..whole.len() {
            assert!(is_refused(&harness, &whole[..cut]).await, "cut at {cut}");
        }
        // A short whole frame of every API at every version, its body random: no panic, and the door lives.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2_000 {
            let mut body = Vec::new();
            for _ in 0..round % 40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                body.push((seed >> 56) as u8);
            }
            let key = i16::try_from(seed % 70).unwrap();
            let version = i16::try_from((seed >> 8) % 13).unwrap();
            let mut client = harness.connect();
            let _ = client.stream.write_all(&frame(key, version, round % 2 == 0, &body)).await;
            client.stream.shutdown().await.unwrap();
            // An answer or the end, within ten seconds.
            while client.frame().await.is_some() {}
        }
        let mut client = harness.connect();
        assert_eq!(client.produce("t", 0, &records(&["alive"])).await.0, 0);
    });
}

#[test]
fn one_connection_too_many_is_closed() {
    run(async {
        let harness = Harness::with(DoorSettings { connections_max: 1, ..DoorSettings::default() });
        let mut first = harness.connect();
        assert_eq!(first.produce("t", 0, &records(&["a"])).await, (0, 0));
        let mut second = harness.connect();
        assert!(second.is_closed().await);
        assert_eq!(harness.door.figures().connections_refused, 1);
        drop(first);
        // The place is free again as soon as the first one's task has ended.
        loop {
            tokio::task::yield_now().await;
            if harness.door.figures().connections_open == 0 {
                break;
            }
        }
        let mut third = harness.connect();
        assert_eq!(third.produce("t", 0, &records(&["b"])).await, (0, 1));
    });
}

#[test]
fn silence_and_dripping_end_the_connection() {
    run(async {
        let harness = Harness::with(DoorSettings {
            idle_max: Duration::from_millis(200),
            stall_max: Duration::from_millis(200),
            ..DoorSettings::default()
        });
        let mut silent = harness.connect();
        assert!(silent.is_closed().await);
        let mut dripping = harness.connect();
        // Five megabytes of a Produce request announced, and nothing after its version.
        dripping.stream.write_all(&[0, 0x50, 0, 0, 0, 0, 0, 9]).await.unwrap();
        assert!(dripping.is_closed().await);
    });
}

#[test]
fn a_peer_that_left_ends_its_long_poll() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let request = headwater_kafka::message!(FetchRequest {
            max_wait_ms: 300_000,
            min_bytes: 1,
            max_bytes: 1,
            topics: vec![headwater_kafka::message!(fetch_request::FetchTopic {
                topic: "t".into(),
                partitions: vec![fetch_request::FetchPartition::default()],
            })],
        });
        client.send(12, &request).await;
        while harness.door.figures().requests.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(client);
        let gone = async {
            while harness.door.figures().connections_open > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the poll ends");
    });
}

/// The most memory that this process has had so far.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// A batch of one record that has so many headers without name and value.
fn headers_only(count: usize, codec: Codec) -> BytesMut {
    let mut record = BytesMut::from(&b"\0\0\0\x02k\x02v"[..]);
    varint(&mut record, count as i64);
    record.resize(record.len() + 2 * count, 0);
    // A header: the name's length 0, the value's -1.
    let from = record.len() - 2 * count;
    record[from..].as_chunks_mut().0.fill([0, 1]);
    let mut body = BytesMut::new();
    varint(&mut body, record.len() as i64);
    body.put_slice(&record);
    let mut packed = Vec::new();
    compress(Compression { codec, level: None }, &body, &mut packed).unwrap();
    let mut batch = BytesMut::from(&records(&["v"])[..61]);
    batch.put_slice(&packed);
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec as u8;
    crc(batch)
}

fn crc(mut batch: BytesMut) -> BytesMut {
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn at_time(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    message!(ListOffsetsRequest {
        topics: vec![message!(list_offsets_request::ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![message!(list_offsets_request::ListOffsetsPartition {
                timestamp: timestamp,
            })],
        })],
    })
}

#[test]
fn a_small_batch_of_millions_of_headers_takes_the_memory_of_its_bytes() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let before = peak_bytes();
        for codec in [Codec::Zstd, Codec::Gzip] {
            let batch = headers_only(4 << 20, codec).freeze();
            assert!(batch.len() < 64 << 10, "{} bytes", batch.len());
            assert_eq!(client.produce("t", 0, &batch).await.0, 0);
            for timestamp in [0, -3] {
                let found = client.call(7, &at_time("t", timestamp)).await;
                let found = &found.topics[0].partitions[0];
                assert_eq!((found.error_code, found.offset), (0, 0));
            }
        }
        let grown = peak_bytes() - before;
        assert!(grown < 128 << 20, "{} MiB for 8 MiB of headers", grown >> 20);
    });
}

#[test]
fn a_batch_that_lies_about_its_newest_record_is_found_by_time_all_the_same() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let lie = |newest: i64| {
            let mut batch = BytesMut::from(&records(&["a", "b", "c"])[..]);
            batch[35..43].copy_from_slice(&newest.to_be_bytes());
            crc(batch).freeze()
        };
        let newest = 1_700_000_000_002;
        for (partition, lied) in [(0, 0), (1, i64::MAX)] {
            assert_eq!(client.produce("t", partition, &lie(lied)).await, (0, 0));
            for (asked, offset, timestamp) in
                [(newest, 2, newest), (-3, 2, newest), (newest + 1, -1, -1)]
            {
                let mut request = at_time("t", asked);
                request.topics[0].partitions[0].partition_index = partition;
                let found = client.call(7, &request).await;
                let found = &found.topics[0].partitions[0];
                assert_eq!((found.offset, found.timestamp), (offset, timestamp), "{lied}, {asked}");
            }
        }
    });
}

#[test]
fn a_client_sets_no_delete_horizon() {
    run(async {
        let harness = Harness::new();
        let mut client = harness.connect();
        let mut batch = BytesMut::from(&records(&["a"])[..]);
        batch[22] |= 0x40;
        let refused = client.produce("c", 0, &crc(batch).freeze()).await;
        assert_eq!(refused.0, ErrorCode::InvalidRecord.code());
    });
}
