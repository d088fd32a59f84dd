//! A log, a door on it, and a client that speaks the wire by hand over a pipe in memory.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_kafka::message;
use headwater_kafka::server::{Door, DoorSettings, NewTopic, TopicRules};
use headwater_kafka::wire::messages::{
    ProduceRequest, ProduceResponse, RequestResponsePair, produce_request,
};
use headwater_kafka::wire::{FrameReader, Limits, decode_response, encode_request};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Cleanup, Durability, TopicSettings};
use headwater_log::{Log, LogOptions, Running, TopicName, batch};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;

/// The open log with its threads, and the door.
pub(crate) struct Harness {
    pub(crate) log: Log,
    pub(crate) door: Door,
    shutdown: watch::Sender<bool>,
    running: Option<Running>,
    _dir: tempfile::TempDir,
}

pub(crate) fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: 16 << 20,
        segment_ms: 604_800_000,
        batch_bytes_max: 1 << 20,
        ..TopicSettings::default()
    }
}

struct Rules;

impl TopicRules for Rules {
    fn rule(&self, _name: &TopicName) -> NewTopic {
        NewTopic { partitions: 2, settings: settings() }
    }
    fn auto_create(&self, name: &TopicName) -> bool {
        !name.as_str().starts_with("never")
    }
    fn client_may_change(&self, name: &TopicName) -> Result<(), String> {
        if name.as_str() == "fixed" { Err("the config names it".to_owned()) } else { Ok(()) }
    }
}

impl Harness {
    /// With a topic `t` of two partitions and a compacted topic `c` of one.
    pub(crate) fn new() -> Self {
        Self::with(DoorSettings::default())
    }

    pub(crate) fn with(door_settings: DoorSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions {
            dirs: vec![dir.path().join("data")],
            journal_file_bytes: 4 << 20,
            journal_files: 4,
            commit_delay: Duration::ZERO,
            commit_delay_max: Duration::from_millis(100),
            journal_bytes_per_day: None,
            bulk_bytes: 4 << 20,
            uncommitted_bytes_max: 16 << 20,
            tail_bytes_max: 8 << 20,
            memory_sync: Duration::from_secs(1),
            reserved_bytes: 0,
            open_files_max: 256,
            labeller: None,
            producer_id_expiration: Duration::from_secs(86_400),
            topics_max: 100,
            partitions_max: 1_000,
            max_bytes: None,
            compaction: Default::default(),
            min_free: None,
        };
        let (log, _) = Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).unwrap();
        let running = log.start();
        log.create_topic(&TopicName::new("t").unwrap(), 2, settings()).unwrap();
        // As the process makes it: nobody may see it.
        log.create_topic(&TopicName::new("__headwater_ledger").unwrap(), 1, settings()).unwrap();
        let compact = TopicSettings { cleanup: Cleanup::Compact, ..settings() };
        log.create_topic(&TopicName::new("c").unwrap(), 1, compact).unwrap();
        let door = Door::new(log.clone(), door_settings, Box::new(Rules));
        let shutdown = watch::Sender::new(false);
        Self { log, door, shutdown, running: Some(running), _dir: dir }
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Raw {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let door = self.door.listening_at("gateway.test", 19092);
        let shutdown = self.shutdown.subscribe();
        tokio::spawn(async move {
            door.serve(theirs, "127.0.0.1:1".parse().unwrap(), shutdown).await;
        });
        Raw { stream: ours, reader: FrameReader::new(FRAME_BYTES_MAX), correlation: 0 }
    }

    /// The process stops.
    pub(crate) fn stop(&self) {
        self.shutdown.send_replace(true);
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.close().unwrap();
        }
    }
}

/// A client.
pub(crate) struct Raw {
    pub(crate) stream: DuplexStream,
    reader: FrameReader,
    correlation: i32,
}

impl Raw {
    /// Sends a request; its correlation id.
    pub(crate) async fn send<R: RequestResponsePair>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        encode_request(&mut frame, self.correlation, Some(&"raw".into()), version, request)
            .unwrap();
        self.stream.write_all(&frame).await.unwrap();
        self.correlation
    }

    /// The next frame, which must come within ten seconds; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        let frame = self.reader.frame(&mut self.stream);
        tokio::time::timeout(Duration::from_secs(10), frame).await.unwrap().unwrap()
    }

    /// The response to the request with that correlation id, which must be the next one.
    pub(crate) async fn receive<R: RequestResponsePair>(
        &mut self,
        version: i16,
        correlation: i32,
    ) -> R::Response {
        let frame = self.frame().await.expect("a response");
        decode_response::<R>(frame, correlation, version, Limits::for_frames_of(FRAME_BYTES_MAX))
            .unwrap()
    }

    pub(crate) async fn call<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
    ) -> R::Response {
        let correlation = self.send(version, request).await;
        self.receive::<R>(version, correlation).await
    }

    /// Produces one batch; error code and base offset.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &Bytes,
    ) -> (i16, i64) {
        let response = self.call(9, &produce(topic, partition, batch, -1)).await;
        outcome(&response)
    }

    /// Whether the server closes the connection without another word.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(10), end).await.unwrap().is_ok() && rest.is_empty()
    }
}

pub(crate) fn produce(topic: &str, partition: i32, batch: &Bytes, acks: i16) -> ProduceRequest {
    message!(ProduceRequest {
        acks: acks,
        timeout_ms: 10_000,
        topic_data: vec![message!(produce_request::TopicProduceData {
            name: topic.into(),
            partition_data: vec![message!(produce_request::PartitionProduceData {
                index: partition,
                records: Some(batch.clone()),
            })],
        })],
    })
}

pub(crate) fn outcome(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// A batch of records `kN` = `values[N]`, without a producer.
pub(crate) fn records(values: &[&str]) -> Bytes {
    batch_by(values, -1, -1, -1, |_| {})
}

/// A batch of an idempotent producer.
pub(crate) fn sequenced(values: &[&str], producer: i64, sequence: i32) -> Bytes {
    batch_by(values, producer, 0, sequence, |_| {})
}

/// A batch whose bytes `change` sees before the CRC is made.
pub(crate) fn batch_by(
    values: &[&str],
    producer: i64,
    epoch: i16,
    sequence: i32,
    change: impl FnOnce(&mut BytesMut),
) -> Bytes {
    let mut body = BytesMut::new();
    for (delta, value) in values.iter().enumerate() {
        let key = format!("k{delta}");
        let mut record = BytesMut::new();
        record.put_u8(0);
        varint(&mut record, delta as i64); // timestamps one millisecond apart
        varint(&mut record, delta as i64);
        varint(&mut record, key.len() as i64);
        record.put_slice(key.as_bytes());
        varint(&mut record, value.len() as i64);
        record.put_slice(value.as_bytes());
        varint(&mut record, 0);
        varint(&mut body, record.len() as i64);
        body.put_slice(&record);
    }
    let count = i32::try_from(values.len()).unwrap();
    let mut bytes = BytesMut::new();
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(61 - 12 + body.len()).unwrap());
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_i16(0);
    bytes.put_i32(count - 1);
    bytes.put_i64(1_700_000_000_000);
    bytes.put_i64(1_700_000_000_000 + i64::from(count) - 1);
    bytes.put_i64(-1);
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(count);
    bytes.put_slice(&body);
    batch::readdress(&mut bytes, producer, epoch, sequence);
    change(&mut bytes);
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

pub(crate) fn varint(into: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        into.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.put_u8(rest as u8);
}

/// Runs a test on a shard's kind of runtime.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}
