//! What clients append: records through the open batch, batches of an idempotent producer, and those once more.

use crate::keys::{headers_of, key_of, mark_of, value_of};
use crate::lookup::timestamp_of;
use crate::model::Sent;
use crate::sim::Sim;
use bytes::BytesMut;
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::batch::{self, BatchBuilder, Seal};
use headwater_log::clock::Clock;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AppendError, Appended, Offset, Position, ReadLimit};

impl Sim {
    pub(crate) fn values(
        &mut self,
        topic: &str,
        partition: usize,
        records: usize,
        bytes: usize,
    ) -> Vec<Vec<u8>> {
        (0..records)
            .map(|_| {
                self.model.next_value += 1;
                let number = self.model.next_value;
                let mut value = format!("{topic}/{partition}#{number}|").into_bytes();
                let mark = mark_of(number).filter(|_| !self.plain);
                value.extend(mark);
                if mark != Some(b'!') {
                    let fill = b'a' + (number % 26) as u8;
                    value.resize(value.len().max(bytes), fill);
                }
                value
            })
            .collect()
    }

    pub(crate) fn append(&mut self, topic: &str, partition: usize, records: usize, bytes: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            let record = RecordParts {
                timestamp_ms: 0,
                key: Some(b"k"),
                value: None,
                headers: Headers::EMPTY,
            };
            let refused = target.append(&[record]);
            let refuses = matches!(refused, Err(AppendError::Offline(_) | AppendError::NotLeader));
            assert!(refuses, "{refused:?}");
            assert!(target.read(Offset::ZERO, 1, ReadLimit::HighWatermark).is_err());
            return;
        }
        let values = self.values(topic, partition, records, bytes);
        let around: Vec<_> = values.iter().map(|text| (key_of(text), headers_of(text))).collect();
        let parts: Vec<RecordParts<'_>> = values
            .iter()
            .zip(&around)
            .map(|(text, (key, headers))| RecordParts {
                timestamp_ms: timestamp_of(text),
                key: key.as_deref(),
                value: value_of(text),
                headers,
            })
            .collect();
        let appended = target.append(&parts);
        if self.is_keyless(topic, &values, &appended) {
            return;
        }
        match appended {
            Ok(appended) => {
                assert!(!appended.duplicate);
                let end = appended.base.offset.get() + records as i64;
                assert_eq!(appended.last.offset.get() + 1, end);
                self.note(topic, partition, appended.base, appended.last, &values);
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    pub(crate) fn note(
        &mut self,
        topic: &str,
        partition: usize,
        base: Position,
        last: Position,
        values: &[Vec<u8>],
    ) {
        let (epoch, now_ms) = (base.epoch.get(), self.clock.wall_ms());
        // One whose making is not committed may be in an epoch that is not either: they go together.
        let part = self.part(topic, partition);
        if !part.replicated && part.created {
            self.model.epoch = self.model.epoch.max(epoch);
        }
        let model = self.part(topic, partition);
        let last_epoch = model.end.checked_sub(1).and_then(|at| model.history.get(at as usize));
        let last_epoch = last_epoch.and_then(|candidates| candidates.last()).map_or(0, |e| e.epoch);
        assert!(epoch >= last_epoch, "epoch {epoch} after {last_epoch}");
        model.appended(base.offset.get(), epoch, values, now_ms);
        model.pending.push((last, last.offset.get() + 1));
    }

    /// Whether these records were refused because one has no key and the topic is compacted, which must be so then.
    pub(crate) fn is_keyless(
        &self,
        topic: &str,
        values: &[Vec<u8>],
        appended: &Result<Appended, AppendError>,
    ) -> bool {
        let settings = self.model.topics[topic].settings.last().expect("one at least");
        let keyless = values.iter().any(|text| key_of(text).is_none());
        if !keyless || !settings.cleanup.compacts() {
            return false;
        }
        let refused = matches!(appended, Err(AppendError::Keyless { .. }));
        assert!(refused || appended.is_err(), "a record without a key: {appended:?}");
        refused
    }

    pub(crate) fn note_refusal(&mut self, error: &AppendError) {
        assert!(
            matches!(
                error,
                AppendError::Busy
                    | AppendError::DiskFull
                    | AppendError::Offline(_)
                    | AppendError::NotLeader
            ),
            "{error}"
        );
        self.refused += usize::from(*error != AppendError::NotLeader);
    }

    pub(crate) fn produce(&mut self, topic: &str, partition: usize, records: usize, bytes: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let values = self.values(topic, partition, records, bytes);
        let producer_id = 5_000;
        let sequence = self.part(topic, partition).next_sequence();
        let appended = target.append_batch(client_batch(producer_id, sequence, &values));
        if self.is_keyless(topic, &values, &appended) {
            return;
        }
        match appended {
            Ok(appended) => {
                assert!(!appended.duplicate, "sequence {sequence} is new");
                self.note(topic, partition, appended.base, appended.last, &values);
                let base = appended.base.offset.get();
                let sent = Sent { producer_id, sequence, base, values, cut: false };
                self.part(topic, partition).sent.push(sent);
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    pub(crate) fn repeat(&mut self, topic: &str, partition: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let start = target.positions().log_start.get();
        let Some(sent) = self.part(topic, partition).last_sent().cloned() else { return };
        if sent.base < start {
            return;
        }
        let batch = client_batch(sent.producer_id, sent.sequence, &sent.values);
        let appended = target.append_batch(batch);
        // As in Kafka: a topic that is compacted since refuses it before it is compared.
        if self.is_keyless(topic, &sent.values, &appended) {
            return;
        }
        match appended {
            Ok(appended) if appended.duplicate => {
                assert_eq!(appended.base.offset.get(), sent.base, "the original's place");
            }
            // The tail it stood in was cut: it is a new batch then.
            Ok(appended) => {
                self.note(topic, partition, appended.base, appended.last, &sent.values);
                let base = appended.base.offset.get();
                self.part(topic, partition).sent.push(Sent { base, ..sent });
            }
            Err(error) => self.note_refusal(&error),
        }
    }
}

/// A batch as a Kafka client sends it.
pub(crate) fn client_batch(producer_id: i64, sequence: i32, values: &[Vec<u8>]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    for text in values {
        let (key, headers) = (key_of(text), headers_of(text));
        let record = RecordParts {
            timestamp_ms: timestamp_of(text),
            key: key.as_deref(),
            value: value_of(text),
            headers: &headers,
        };
        builder.push(&record, usize::MAX).expect("no limit");
    }
    let mut bytes = BytesMut::from(&builder.seal(Seal::default()).expect("not empty")[..]);
    batch::readdress(&mut bytes, producer_id, 0, sequence);
    // A producer that tries one codec after the other.
    let codec = Codec::from_number((sequence % 5) as u8).expect("there are five");
    match batch::compressed(&bytes, Compression { codec, level: None }) {
        Some(small) => BytesMut::from(&small[..]),
        None => bytes,
    }
}
