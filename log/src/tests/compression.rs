//! Batches made here that are compressed on their way to a cycle.

use super::faults::{Rig, first};
use super::{append, numbered, settings, topic, values};
use crate::batch::compression::{Codec, Compression};
use crate::batch::{self, BatchHeader};
use crate::metadata::TopicSettings;
use crate::record::{Headers, RecordParts};
use crate::{AckPoint, LeaderEpoch, Offset, Partition, ReadLimit, Settled};
use std::sync::atomic::Ordering;

fn with(codec: Codec) -> TopicSettings {
    TopicSettings { compression: Compression { codec, level: None }, ..settings() }
}

fn headers(partition: &Partition) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    let mut from = Offset::ZERO;
    while from < partition.positions().high_watermark {
        let read = partition.read(from, 1 << 20, ReadLimit::HighWatermark).unwrap();
        headers.extend(read.batches.iter().map(|batch| batch::verify(batch).unwrap()));
        from = read.next;
    }
    headers
}

#[test]
fn batches_made_here_are_stored_compressed_and_read_the_same_after_a_crash() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut rig = Rig::new();
        let (log, _) = rig.open();
        let p = topic(&log, "t", 1, with(codec))[0].clone();
        for value in numbered(0..200) {
            append(&p, &value);
        }
        let at = append(&p, "last");
        assert!(log.step_commit());
        assert!(!log.step_commit(), "all of it was committed");
        assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Passed);
        let stats = log.stats();
        assert!(stats.compress_stored_bytes < stats.compress_plain_bytes / 2, "{stats:?}");
        assert_eq!(stats.uncommitted_bytes, 0, "what was saved is not missing from the account");
        for header in headers(&p) {
            assert_eq!((header.codec(), header.is_made_here()), (codec, true));
        }
        // One record alone is not smaller compressed.
        append(&p, "one");
        log.step_commit();
        assert_eq!(headers(&p).last().unwrap().codec(), Codec::None);
        let mut expected = numbered(0..200);
        expected.extend(["last".to_owned(), "one".to_owned()]);
        assert_eq!(values(&p), expected);
        drop((log, p));
        rig.crash();
        let (log, recovery) = rig.open();
        assert!(recovery.findings.is_empty(), "{recovery:?}");
        let p = first(&log);
        assert_eq!(values(&p), expected);
        // The node's sequence went on as without compression.
        append(&p, "after");
        log.step_commit();
        assert_eq!(headers(&p).last().unwrap().base_sequence, 202);
    }
}

#[test]
fn what_comes_while_a_batch_is_compressed_gathers_and_is_committed_behind_it() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, with(Codec::Lz4))[0].clone();
    let directory = &log.engine.directories[0];
    let step = || directory.committer.lock().step(directory);
    append(&p, &"a".repeat(2_000));
    assert!(step(), "a cycle that hands the batch over");
    append(&p, &"b".repeat(2_000));
    append(&p, &"c".repeat(2_000));
    step();
    assert_eq!(p.positions().high_watermark, Offset::ZERO, "the batch is away");
    assert!(directory.shared.compressor.run_waiting());
    while step() || directory.shared.compressor.run_waiting() {}
    assert_eq!(p.positions().high_watermark, p.positions().log_end);
    let found: Vec<_> = headers(&p).iter().map(|h| (h.base_offset, h.record_count)).collect();
    assert_eq!(found, [(0, 1), (1, 2)]);
    assert_eq!(directory.shared.uncommitted_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_batch_that_was_cut_while_it_was_compressed_stays_cut() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, with(Codec::Lz4))[0].clone();
    let directory = &log.engine.directories[0];
    append(&p, &"a".repeat(2_000));
    directory.committer.lock().step(directory);
    p.cut(Some((LeaderEpoch::new(77).unwrap(), 0)));
    assert_eq!(p.positions().log_end, Offset::ZERO);
    assert!(directory.shared.compressor.run_waiting());
    assert_eq!(directory.shared.uncommitted_bytes.load(Ordering::Relaxed), 0);
    assert!(!log.step_commit() || p.positions().high_watermark == Offset::ZERO);
}

#[test]
fn what_is_too_much_for_the_codec_is_stored_as_it_is() {
    let mut rig = Rig::new();
    rig.options.uncommitted_bytes_max = 64 << 20;
    let (log, _) = rig.open();
    let big = TopicSettings { batch_bytes_max: 900_000, ..with(Codec::Gzip) };
    let partitions = topic(&log, "t", 20, big);
    let value = vec![b'v'; 500_000];
    let record =
        RecordParts { timestamp_ms: 0, key: None, value: Some(&value), headers: Headers::EMPTY };
    for p in &partitions {
        p.append(&[record]).unwrap();
    }
    while log.step_commit() {}
    let stats = log.stats();
    assert!(stats.compress_skipped > 0 && stats.compress_plain_bytes > 7 << 20, "{stats:?}");
    for p in &partitions {
        assert_eq!(p.positions().high_watermark, p.positions().log_end);
    }
}

#[test]
fn threads_compress_and_acknowledge() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, with(Codec::Zstd))[0].clone();
    let running = log.start();
    for value in numbered(0..2_000) {
        append(&p, &value);
    }
    running.close().unwrap();
    assert_eq!(p.positions().synced, p.positions().log_end, "an orderly end waits for the codec");
    assert!(headers(&p).iter().any(|h| h.codec() == Codec::Zstd));
}
