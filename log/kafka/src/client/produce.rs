//! Produce (key 0): ready-made batches, by reference.
//!
//! Invariant: one batch per partition per request, as brokers require from version 3 on. The request is
//! written by hand because the codec would copy every record into its frame.
//!
//! | version | what it added |
//! |---|---|
//! | 3 | record batches (KIP-98), the lowest that is spoken here |
//! | 7 | zstd (KIP-110) |
//! | 8 | messages with errors (KIP-467) |
//! | 9 | tagged fields (KIP-482) |
//! | 10 | the new leader in the answer (KIP-951) |
//! | 11 | errors of transactions; the highest spoken here: 12 and 13 are for transactions and topic ids |

use super::connection::Frame;
use super::error::code_name;
use super::{ClientError, Connection};
use crate::wire::messages::{ProduceRequest, ProduceResponse, StrBytes};
use crate::wire::{ApiKey, Versions, decode_response, is_flexible};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

const VERSIONS: Versions = Versions::new(3, 11);

/// A batch for a partition.
#[derive(Debug, Clone)]
pub struct ProduceBatch {
    /// The topic's name.
    pub topic: StrBytes,
    /// The partition's number.
    pub partition: i32,
    /// One whole batch, base offset 0, CRC right.
    pub batch: Bytes,
}

/// What the broker said of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceOutcome {
    /// The topic's name.
    pub topic: StrBytes,
    /// The partition's number.
    pub partition: i32,
    /// Kafka's error code, 0 for none; see [`super::produce_verdict`].
    pub code: i16,
    /// Offset of the batch's first record, -1 when the broker does not say.
    pub base_offset: i64,
    /// The code's name and the broker's words.
    pub message: String,
}

impl Connection {
    /// Sends batches with `acks=all`: at most one per partition; batches of one topic stand together.
    /// `timeout` is how long the broker may wait for its replicas.
    ///
    /// The request has its place in the order of the connection when this returns, before the future is polled, and
    /// [`super::ClientOptions::in_flight_max`] does not hold it back: the caller bounds what is unanswered.
    ///
    /// # Errors
    /// [`ClientError`], here when nothing was sent, and from the future; after [`ClientError::Lost`] each batch may be
    /// there or not.
    pub fn produce(
        &self,
        batches: &[ProduceBatch],
        timeout: Duration,
    ) -> Result<impl Future<Output = Result<Vec<ProduceOutcome>, ClientError>> + use<>, ClientError>
    {
        let version = self.version(ApiKey::PRODUCE, VERSIONS)?;
        let correlation = self.next_correlation();
        let head = Head { version, correlation, client_id: self.client_id(), timeout };
        let frame = head
            .frame(batches)
            .ok_or_else(|| self.protocol("more than 2 GiB in one Produce request".to_owned()))?;
        let within = self.request_timeout() + timeout;
        let enqueued = self.enqueue(correlation, frame, within, None);
        let connection = self.clone();
        Ok(async move {
            let answer = enqueued.answer().await?;
            let answer = decode_response::<ProduceRequest>(
                answer,
                correlation,
                version,
                connection.limits(),
            )
            .map_err(|e| connection.protocol(e.to_string()))?;
            Ok(outcomes(answer))
        })
    }
}

fn outcomes(answer: ProduceResponse) -> Vec<ProduceOutcome> {
    let mut outcomes = Vec::new();
    for topic in answer.responses {
        for p in topic.partition_responses {
            let words = p.error_message.as_deref().unwrap_or_default();
            let message = match p.error_code {
                0 => String::new(),
                code => format!("{} {words}", code_name(code)).trim_end().to_owned(),
            };
            outcomes.push(ProduceOutcome {
                topic: topic.name.clone(),
                partition: p.index,
                code: p.error_code,
                base_offset: p.base_offset,
                message,
            });
        }
    }
    outcomes
}

struct Head<'a> {
    version: i16,
    correlation: i32,
    client_id: &'a StrBytes,
    timeout: Duration,
}

impl Head<'_> {
    /// `None` when the frame would be longer than its length field can say.
    fn frame(&self, batches: &[ProduceBatch]) -> Option<Frame> {
        let flexible = is_flexible::<ProduceRequest>(self.version);
        let mut writer = Writer { out: BytesMut::new(), cuts: Vec::new(), flexible };
        writer.out.put_i32(0);
        writer.out.put_i16(ApiKey::PRODUCE.0);
        writer.out.put_i16(self.version);
        writer.out.put_i32(self.correlation);
        // Never compact, whatever the header's version.
        writer.out.put_i16(i16::try_from(self.client_id.len()).ok()?);
        writer.out.put_slice(self.client_id.as_bytes());
        writer.tags();
        writer.null_string();
        writer.out.put_i16(-1); // acks: all in-sync replicas
        writer.out.put_i32(i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX));
        let topics: Vec<&[ProduceBatch]> = batches.chunk_by(|a, b| a.topic == b.topic).collect();
        writer.length(topics.len())?;
        for topic in topics {
            writer.string(&topic[0].topic)?;
            writer.length(topic.len())?;
            for batch in topic {
                writer.out.put_i32(batch.partition);
                writer.records(&batch.batch)?;
                writer.tags();
            }
            writer.tags();
        }
        writer.tags();
        writer.finish()
    }
}

/// Writes the small parts into one buffer and remembers where the batches belong between them.
struct Writer {
    out: BytesMut,
    cuts: Vec<(usize, Bytes)>,
    flexible: bool,
}

impl Writer {
    fn tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    fn null_string(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        } else {
            self.out.put_i16(-1);
        }
    }

    fn string(&mut self, value: &StrBytes) -> Option<()> {
        if self.flexible {
            self.varint(value.len().checked_add(1)?)?;
        } else {
            self.out.put_i16(i16::try_from(value.len()).ok()?);
        }
        self.out.put_slice(value.as_bytes());
        Some(())
    }

    /// The length of an array or of records; a compact one is one more.
    fn length(&mut self, length: usize) -> Option<()> {
        if self.flexible {
            return self.varint(length.checked_add(1)?);
        }
        self.out.put_i32(i32::try_from(length).ok()?);
        Some(())
    }

    fn records(&mut self, batch: &Bytes) -> Option<()> {
        self.length(batch.len())?;
        self.cuts.push((self.out.len(), batch.clone()));
        Some(())
    }

    fn varint(&mut self, value: usize) -> Option<()> {
        let mut value = u32::try_from(value).ok()?;
        while value >= 0x80 {
            self.out.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
        Some(())
    }

    fn finish(mut self) -> Option<Frame> {
        let batches: usize = self.cuts.iter().map(|(_, batch)| batch.len()).sum();
        let length = i32::try_from(self.out.len() - 4 + batches).ok()?;
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        let small = self.out.freeze();
        let mut frame = Frame::default();
        let mut from = 0;
        for (at, batch) in self.cuts {
            frame.push(small.slice(from..at));
            frame.push(batch);
            from = at;
        }
        frame.push(small.slice(from..));
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use crate::wire::encode_request;
    use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use bytes::Buf;

    fn batch(topic: &str, partition: i32, bytes: usize) -> ProduceBatch {
        let batch = Bytes::from(vec![partition as u8; bytes]);
        ProduceBatch { topic: topic.into(), partition, batch }
    }

    /// What the codec makes of the same request is what stands on the wire.
    #[test]
    fn the_hand_written_frame_is_the_codecs_at_every_version() {
        let client_id = StrBytes::from("uplink");
        let batches = [batch("a", 0, 61), batch("a", 200, 130), batch(&"b".repeat(200), 1, 20_000)];
        let data = |b: &ProduceBatch| {
            message!(PartitionProduceData { index: b.partition, records: Some(b.batch.clone()) })
        };
        let topic = |of: &[ProduceBatch]| {
            message!(TopicProduceData {
                name: of[0].topic.clone(),
                partition_data: of.iter().map(data).collect(),
            })
        };
        let request = message!(ProduceRequest {
            acks: -1,
            timeout_ms: 1_500,
            topic_data: vec![topic(&batches[..2]), topic(&batches[2..])],
        });
        for version in VERSIONS.min..=VERSIONS.max {
            let timeout = Duration::from_millis(1_500);
            let head = Head { version, correlation: 77, client_id: &client_id, timeout };
            let mut frame = head.frame(&batches).unwrap();
            let ours = frame.copy_to_bytes(frame.remaining());
            let mut theirs = BytesMut::new();
            encode_request(&mut theirs, 77, Some(&client_id), version, &request).unwrap();
            assert_eq!(ours, theirs.freeze(), "version {version}");
        }
    }

    #[test]
    fn batches_are_not_copied_into_the_frame() {
        let one = batch("a", 0, 50_000);
        let client_id = StrBytes::from("uplink");
        let timeout = Duration::from_secs(1);
        let head = Head { version: 9, correlation: 1, client_id: &client_id, timeout };
        let frame = head.frame(std::slice::from_ref(&one)).unwrap();
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = frame.chunks_vectored(&mut slices);
        assert!(slices[..count].iter().any(|s| s.as_ptr() == one.batch.as_ptr()));
    }
}
