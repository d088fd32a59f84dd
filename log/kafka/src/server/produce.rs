//! Produce (key 0), versions 3-11 implemented, 0-2 answered UNSUPPORTED_VERSION.
//!
//! v3 brings batches of magic 2 and the transactional id (KIP-98), v5 the log start offset
//! (KIP-107), v7 zstd (KIP-110), v8 errors by record and the message (KIP-467), v9 tagged fields,
//! v10 the current leader (KIP-951), v11 nothing on the wire.
//!
//! Step 7 for Kafka clients; from `connection`; to the partition's append, and back through
//! [`Pending::settle`] when the ack point is passed.
//! Invariant: no success leaves before [`Settled::Passed`] for every batch of the request. Each
//! partition is refused by itself; nothing of a refused batch is stored.

#[path = "produce_request.rs"]
mod request;

use super::{Door, lookup};
use crate::message;
use crate::wire::messages::{ProduceRequest, ProduceResponse, produce_response};
use crate::wire::{
    ErrorCode, LENGTH_BYTES, Limits, RequestHead, Versions, WireError, encode_response,
};
use bytes::{BufMut, Bytes, BytesMut};
use headwater_log::batch::BatchHeader;
use headwater_log::batch::compression::Codec;
use headwater_log::{AckPoint, AppendError, Appended, Partition, Position, Settled, Topic};
use request::{PartitionData, Request, TopicData};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Advertised. Below 3 only the refusal is implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 11);

/// The lowest version with batches of magic 2.
const VERSION_MIN: i16 = 3;

/// The lowest version whose clients know zstd (KIP-110).
const VERSION_ZSTD: i16 = 7;

/// The bit of a batch's attributes for timestamps made by the broker.
const LOG_APPEND_TIME: i16 = 0x08;

/// A request has at most so long, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// How a Produce request begins.
pub(super) enum Begun {
    /// Appended as far as possible; answered when [`Pending::settle`] says so.
    Waits(Pending),
    /// acks=0: no answer, and on an error the connection is closed, as Kafka does.
    Silent(Result<(), ErrorCode>),
}

/// A Produce request between its append and its ack point.
pub(super) struct Pending {
    /// When its client is told REQUEST_TIMED_OUT.
    pub(super) deadline: Instant,
    correlation_id: i32,
    version: i16,
    point: AckPoint,
    response: ProduceResponse,
    waits: Vec<Wait>,
    /// The frame of a refusal that the codec has no form for (versions 0-2).
    ready: Option<Bytes>,
}

/// A batch that has not passed its ack point.
struct Wait {
    topic: usize,
    partition: usize,
    log: Arc<Partition>,
    last: Position,
}

/// Appends what can be appended. Waits only while the append path is full.
///
/// # Errors
/// [`WireError`]: close the connection.
pub(super) async fn begin(
    door: &Door,
    head: &RequestHead,
    body: Bytes,
    limits: Limits,
) -> Result<Begun, WireError> {
    let version = head.api_version;
    let request = Request::read(body, version, limits)?;
    if version < VERSION_MIN {
        return Ok(refuse_old(door, head, &request));
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    // The timeout is for the wait of acks=all; a broker answers acks=1 when the write is done, however short it is.
    let timeout = if request.acks == 1 { TIMEOUT_MAX } else { timeout.min(TIMEOUT_MAX) };
    let deadline = Instant::now() + timeout;
    let mut pending = Pending {
        deadline,
        correlation_id: head.correlation_id,
        version,
        point: if request.acks == 1 { AckPoint::Written } else { AckPoint::HighWatermark },
        response: ProduceResponse::default(),
        waits: Vec::new(),
        ready: None,
    };
    let refusal = if !(-1..=1).contains(&request.acks) {
        Some(Refused::new(ErrorCode::InvalidRequiredAcks, "acks must be 0, 1 or -1 (all)"))
    } else if request.transactional {
        Some(Refused::new(ErrorCode::InvalidTxnState, NO_TRANSACTIONS))
    } else {
        None
    };
    let mut first_error = None;
    for (topic_index, data) in request.topics.iter().enumerate() {
        let topic = lookup::topic(door, &data.name);
        let mut answers = Vec::with_capacity(data.partitions.len());
        for (index, partition) in data.partitions.iter().enumerate() {
            let place = Place { version, deadline, topic: topic.as_ref() };
            let appended = match &refusal {
                Some(refused) => Err(refused.clone()),
                None => place.append(door, partition).await,
            };
            let answer = match appended {
                Ok((log, appended)) => {
                    let answer = accepted(partition.index, &log, appended);
                    let last = appended.last;
                    pending.waits.push(Wait { topic: topic_index, partition: index, log, last });
                    answer
                }
                Err(refused) => {
                    first_error.get_or_insert(refused.code);
                    refused.answer(door, partition.index)
                }
            };
            answers.push(answer);
        }
        pending.response.responses.push(message!(produce_response::TopicProduceResponse {
            name: data.name.clone(),
            partition_responses: answers,
        }));
    }
    if request.acks == 0 {
        return Ok(Begun::Silent(first_error.map_or(Ok(()), Err)));
    }
    pending.own_names();
    Ok(Begun::Waits(pending))
}

const NO_TRANSACTIONS: &str = "transactions are not served by this version of Headwater";

impl Pending {
    /// Looks whether the ack points are passed. `true`: the response can be encoded.
    pub(super) fn settle(&mut self, door: &Door, now: Instant) -> bool {
        let late = now >= self.deadline;
        let (point, response) = (self.point, &mut self.response);
        self.waits.retain(|wait| {
            let code = match wait.log.settled(point, wait.last) {
                Settled::Passed => return false,
                Settled::Waiting if !late => return true,
                // Stored, perhaps, but not so safely as was asked for: Kafka's own words for it.
                Settled::Waiting => ErrorCode::RequestTimedOut,
                Settled::Lost(loss) => lookup::loss_code(&loss),
            };
            let answer = &mut response.responses[wait.topic].partition_responses[wait.partition];
            answer.error_code = door.code(code);
            answer.base_offset = -1;
            false
        });
        self.waits.is_empty()
    }

    /// The response's frame. Call when [`Pending::settle`] answered `true`.
    pub(super) fn encode(self) -> Result<Bytes, WireError> {
        match self.ready {
            Some(frame) => Ok(frame),
            None => {
                encode_response::<ProduceRequest>(self.correlation_id, self.version, &self.response)
            }
        }
    }

    /// Copies the topics' names out of the request's frame, whose memory is free from here on.
    fn own_names(&mut self) {
        for topic in &mut self.response.responses {
            topic.name = topic.name.as_str().into();
        }
    }
}

/// Where a batch of a request goes.
struct Place<'a> {
    version: i16,
    deadline: Instant,
    topic: Option<&'a Topic>,
}

/// A refused batch.
#[derive(Debug, Clone)]
struct Refused {
    code: ErrorCode,
    text: String,
    records: Vec<i32>,
}

impl Refused {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), records: Vec::new() }
    }

    fn by_the_log(error: &AppendError) -> Self {
        let records = match error {
            AppendError::Keyless { records } => records.as_slice(),
            _ => &[],
        };
        let records = records.iter().filter_map(|index| i32::try_from(*index).ok()).collect();
        Self { code: lookup::append_code(error), text: error.to_string(), records }
    }

    fn answer(&self, door: &Door, index: i32) -> produce_response::PartitionProduceResponse {
        let by_record = self.records.iter().map(|record| {
            message!(produce_response::BatchIndexAndErrorMessage {
                batch_index: *record,
                batch_index_error_message: Some(self.text.as_str().into()),
            })
        });
        message!(produce_response::PartitionProduceResponse {
            index: index,
            error_code: door.code(self.code),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: by_record.collect(),
            error_message: Some(self.text.as_str().into()),
        })
    }
}

fn accepted(
    index: i32,
    log: &Partition,
    appended: Appended,
) -> produce_response::PartitionProduceResponse {
    message!(produce_response::PartitionProduceResponse {
        index: index,
        base_offset: appended.base.offset.get(),
        log_append_time_ms: -1,
        log_start_offset: log.positions().log_start.get(),
    })
}

impl Place<'_> {
    /// Checks and appends one batch. While the append path is full it waits for the next cycle.
    async fn append(
        &self,
        door: &Door,
        data: &PartitionData,
    ) -> Result<(Arc<Partition>, Appended), Refused> {
        let log = lookup::partition(self.topic, data.index)
            .map_err(|code| Refused::new(code, "no such topic or partition"))?;
        let records = data.records.as_ref().filter(|records| !records.is_empty());
        let records = records.ok_or_else(|| {
            Refused::new(ErrorCode::InvalidRecord, "one record batch per partition is required")
        })?;
        let codec = check(records, self.version)?;
        if codec != Codec::None {
            // A few bytes may stand for many: others of this shard have their turn before each such batch.
            tokio::task::yield_now().await;
        }
        let mut moved = door.log().moved();
        loop {
            moved.borrow_and_update();
            match log.append_batch(BytesMut::from(&records[..])) {
                Ok(appended) => {
                    door.shared.figures.batch();
                    return Ok((log.clone(), appended));
                }
                Err(AppendError::Busy) => {}
                Err(error) => return Err(Refused::by_the_log(&error)),
            }
            if !matches!(timeout_at(self.deadline, moved.changed()).await, Ok(Ok(()))) {
                let text = "the append path was full for the whole timeout";
                return Err(Refused::new(ErrorCode::RequestTimedOut, text));
            }
        }
    }
}

/// What Kafka's broker checks of a batch's header before its log does (`ProduceRequest.validateRecords`,
/// `LogValidator.validateBatch`); sizes, sums and sequences are the partition's to check. Answers how it is compressed.
fn check(records: &Bytes, version: i16) -> Result<Codec, Refused> {
    let refuse = |code, text: &str| Err(Refused::new(code, text));
    let header = BatchHeader::parse(records)
        .map_err(|error| Refused::new(lookup::batch_code(&error), error.to_string()))?;
    if header.size_bytes() < records.len() {
        return refuse(
            ErrorCode::InvalidRecord,
            "exactly one record batch per partition is allowed",
        );
    }
    if header.size_bytes() > records.len() {
        return refuse(ErrorCode::CorruptMessage, "the record batch is cut short");
    }
    if header.codec() == Codec::Zstd && version < VERSION_ZSTD {
        return refuse(ErrorCode::UnsupportedCompressionType, "zstd needs Produce version 7");
    }
    if header.is_transactional() {
        return refuse(ErrorCode::InvalidTxnState, NO_TRANSACTIONS);
    }
    // No gaps, no control batch, a sequence where there is a producer, and nobody claims -2, the mark of
    // batches made here, whose `hw` header is trusted.
    if let Err(error) = header.check_from_client() {
        return refuse(lookup::batch_code(&error), &error.to_string());
    }
    if header.attributes & LOG_APPEND_TIME != 0 {
        let text = "producers may not set the timestamp type to LogAppendTime";
        return refuse(ErrorCode::InvalidTimestamp, text);
    }
    Ok(header.codec())
}

/// Versions 0-2: every partition is answered UNSUPPORTED_VERSION, in the form of that version, which the
/// codec does not have.
fn refuse_old(door: &Door, head: &RequestHead, request: &Request) -> Begun {
    if request.acks == 0 {
        return Begun::Silent(Err(ErrorCode::UnsupportedVersion));
    }
    let code = door.code(ErrorCode::UnsupportedVersion);
    // Both bounded far below what their fields hold by `Request::read`.
    let count = |elements: usize| i32::try_from(elements).unwrap_or(0);
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i32(head.correlation_id);
    frame.put_i32(count(request.topics.len()));
    for TopicData { name, partitions } in &request.topics {
        frame.put_i16(i16::try_from(name.len()).unwrap_or(0));
        frame.put_slice(name.as_bytes());
        frame.put_i32(count(partitions.len()));
        for partition in partitions {
            frame.put_i32(partition.index);
            frame.put_i16(code);
            frame.put_i64(-1);
            if head.api_version >= 2 {
                frame.put_i64(-1);
            }
        }
    }
    if head.api_version >= 1 {
        frame.put_i32(0);
    }
    let length = count(frame.len() - LENGTH_BYTES);
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Begun::Waits(Pending {
        deadline: Instant::now(),
        correlation_id: head.correlation_id,
        version: head.api_version,
        point: AckPoint::Appended,
        response: ProduceResponse::default(),
        waits: Vec::new(),
        ready: Some(frame.freeze()),
    })
}

#[cfg(test)]
#[path = "produce_tests.rs"]
mod tests;
