//! A Produce request, read by hand: versions 0-11.
//!
//! The codec would decode any number of partitions that fits a frame, at eighty bytes of memory for six
//! of the frame; here their number is bounded over the whole request, and versions 0-2, which the codec
//! does not have, are read, too.
//! Invariant: records and names share the frame's memory; nothing else is kept of it.
//! Neighbours: `produce` appends what is read here; a test compares with the codec.

use crate::wire::messages::StrBytes;
use crate::wire::{Limits, WireError};
use bytes::{Buf, Bytes};

/// Topics and partitions in one request. Producers name the partitions that they lead batches for; a
/// gateway has a thousand topics.
const PARTITIONS_MAX: usize = 10_000;

/// From here on lengths are compact and tagged fields follow (KIP-482).
const VERSION_FLEXIBLE: i16 = 9;

/// From here on there is a transactional id (KIP-98).
const VERSION_TRANSACTIONAL: i16 = 3;

/// The request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) transactional: bool,
    pub(super) acks: i16,
    pub(super) timeout_ms: i32,
    pub(super) topics: Vec<TopicData>,
}

/// The batches for one topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopicData {
    pub(super) name: StrBytes,
    pub(super) partitions: Vec<PartitionData>,
}

/// The batch for one partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartitionData {
    pub(super) index: i32,
    pub(super) records: Option<Bytes>,
}

impl Request {
    /// Reads the whole body.
    ///
    /// # Errors
    /// [`WireError::Request`]: close the connection.
    pub(super) fn read(body: Bytes, version: i16, limits: Limits) -> Result<Self, WireError> {
        let mut from = Cursor {
            rest: body,
            flexible: version >= VERSION_FLEXIBLE,
            elements_left: PARTITIONS_MAX,
            string_bytes_max: limits.string_bytes_max,
        };
        let request = from.request(version).ok_or(WireError::Request("Produce is malformed"))?;
        if from.rest.has_remaining() {
            return Err(WireError::Request("bytes follow the end of Produce"));
        }
        Ok(request)
    }
}

struct Cursor {
    rest: Bytes,
    flexible: bool,
    elements_left: usize,
    string_bytes_max: usize,
}

/// Every method answers `None` for bytes that are not what it is to read.
impl Cursor {
    fn request(&mut self, version: i16) -> Option<Request> {
        let transactional = version >= VERSION_TRANSACTIONAL && self.string()?.is_some();
        let acks = self.rest.try_get_i16().ok()?;
        let timeout_ms = self.rest.try_get_i32().ok()?;
        let mut topics = Vec::new();
        for _ in 0..self.elements()? {
            let name = StrBytes::try_from(self.string()??).ok()?;
            let mut partitions = Vec::new();
            for _ in 0..self.elements()? {
                let index = self.rest.try_get_i32().ok()?;
                let records = match self.long_length()? {
                    Some(bytes) => Some(self.take(bytes)?),
                    None => None,
                };
                self.tags()?;
                partitions.push(PartitionData { index, records });
            }
            self.tags()?;
            topics.push(TopicData { name, partitions });
        }
        self.tags()?;
        Some(Request { transactional, acks, timeout_ms, topics })
    }

    /// The length of an array, taken from what is left for the whole request.
    fn elements(&mut self) -> Option<usize> {
        let elements = self.long_length()??;
        self.elements_left = self.elements_left.checked_sub(elements)?;
        Some(elements)
    }

    /// A string; the inner `None` is null.
    fn string(&mut self) -> Option<Option<Bytes>> {
        let length = if self.flexible {
            self.long_length()?
        } else {
            match self.rest.try_get_i16().ok()? {
                -1 => None,
                length => Some(usize::try_from(length).ok()?),
            }
        };
        match length {
            Some(bytes) if bytes <= self.string_bytes_max => self.take(bytes).map(Some),
            Some(_) => None,
            None => Some(None),
        }
    }

    /// The length of bytes or of an array; the inner `None` is null.
    fn long_length(&mut self) -> Option<Option<usize>> {
        if self.flexible {
            return Some(usize::try_from(self.varint()?).ok()?.checked_sub(1));
        }
        match self.rest.try_get_i32().ok()? {
            -1 => Some(None),
            length => usize::try_from(length).ok().map(Some),
        }
    }

    /// Tagged fields are skipped: no version up to 11 has one.
    fn tags(&mut self) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.varint()? {
            let _tag = self.varint()?;
            let bytes = usize::try_from(self.varint()?).ok()?;
            self.take(bytes)?;
        }
        Some(())
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.rest.try_get_u8().ok()?;
            let bits = u32::from(byte & 0x7f);
            // The fifth byte has room for four bits.
            if shift == 28 && bits > 0x0f {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, bytes: usize) -> Option<Bytes> {
        (bytes <= self.rest.len()).then(|| self.rest.split_to(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use crate::wire::messages::{ProduceRequest, produce_request};
    use crate::wire::{decode_request_head, encode_request};
    use bytes::{BufMut, BytesMut};

    const LIMITS: Limits = Limits::for_frames_of(1 << 20);

    fn body(version: i16, request: &ProduceRequest) -> Bytes {
        let mut frame = BytesMut::new();
        encode_request(&mut frame, 1, None, version, request).unwrap();
        let frame = frame.freeze().slice(4..);
        decode_request_head(frame, LIMITS, |_, version| version >= 9).unwrap().1
    }

    fn sample(partitions: i32) -> ProduceRequest {
        let data = (0..partitions).map(|index| {
            let records = (index != 1).then(|| Bytes::from(vec![7; 200]));
            message!(produce_request::PartitionProduceData { index: index, records: records })
        });
        let data: Vec<_> = data.collect();
        let topic = |name: &str| {
            message!(produce_request::TopicProduceData {
                name: name.into(),
                partition_data: data.clone(),
            })
        };
        message!(ProduceRequest {
            transactional_id: Some("tx".into()),
            acks: -1,
            timeout_ms: 1_500,
            topic_data: vec![topic("a"), topic("telemetry.line-1")],
        })
    }

    #[test]
    fn what_the_codec_writes_is_read_at_every_version_and_nothing_less() {
        for version in 3..=11 {
            let sent = sample(3);
            let body = body(version, &sent);
            let read = Request::read(body.clone(), version, LIMITS).unwrap();
            assert_eq!((read.transactional, read.acks, read.timeout_ms), (true, -1, 1_500));
            assert_eq!(read.topics.len(), 2);
            for (topic, sent) in read.topics.iter().zip(&sent.topic_data) {
                assert_eq!(topic.name, sent.name);
                let read = topic.partitions.iter().map(|p| (p.index, p.records.clone()));
                let sent = sent.partition_data.iter().map(|p| (p.index, p.records.clone()));
                assert!(read.eq(sent), "version {version}");
            }
            for cut in 0..body.len() {
                assert!(Request::read(body.slice(..cut), version, LIMITS).is_err(), "cut {cut}");
            }
            let longer = Bytes::from([&body[..], &[0]].concat());
            assert!(Request::read(longer, version, LIMITS).is_err());
        }
    }

    #[test]
    fn the_number_of_partitions_is_bounded_over_the_request() {
        // Two topics and twice so many partitions each.
        for (partitions, allowed) in [(4_999, true), (5_000, false)] {
            let mut sent = sample(0);
            for topic in &mut sent.topic_data {
                topic.partition_data = vec![Default::default(); partitions];
            }
            assert_eq!(Request::read(body(9, &sent), 9, LIMITS).is_ok(), allowed, "{partitions}");
        }
    }

    #[test]
    fn old_versions_have_no_transactional_id() {
        let mut body = BytesMut::new();
        body.put_slice(&[0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
        body.put_slice(&[0, 0, 0, 5, 0, 0, 0, 2, 1, 2]);
        let read = Request::read(body.freeze(), 1, LIMITS).unwrap();
        assert_eq!((read.transactional, read.acks, read.timeout_ms), (false, 1, 9));
        assert_eq!(read.topics[0].partitions[0].index, 5);
    }
}
