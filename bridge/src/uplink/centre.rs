//! What is asked of the centre: its topics (made or grown where they are short), and what it has of ours.
//!
//! Invariant: a search of a target ends at the high watermark seen before it, so it ends.
//! Neighbours: `mirror` poses the [`Question`] and judges the [`Evidence`]; `headwater_kafka::client` does the talking.

use super::mirror::{Evidence, Question};
use super::sequence::Sequence;
use headwater_kafka::client::{
    Client, ClientError, Connection, FetchPartition, Metadata, MetadataTopic, NewTopic,
    ProducerIdentity,
};
use headwater_kafka::wire::ErrorCode;
use headwater_kafka::wire::messages::StrBytes;
use headwater_log::Partition;
use headwater_log::batch::BatchHeader;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the centre may take to make a topic.
const CREATE_TIMEOUT: Duration = Duration::from_secs(20);
/// Looks for leaders of topics just made, and the wait between two.
const LEADER_LOOKS_MAX: u32 = 20;
const LEADER_WAIT: Duration = Duration::from_millis(100);
const SCAN_BYTES: usize = 1 << 20;

/// A topic that the uplink needs at the centre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: String,
    pub(crate) partitions: i32,
}

/// The centre as far as the uplink needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    /// By name; an error is a sentence for people.
    pub(crate) topics: BTreeMap<String, Result<TargetTopic, String>>,
}

/// A topic at the centre.
#[derive(Debug, Clone)]
pub(crate) struct TargetTopic {
    pub(crate) id: [u8; 16],
    /// By partition number.
    pub(crate) leaders: Vec<Option<i32>>,
}

/// Learns the cluster, makes topics that are missing and grows those that are short.
pub(crate) async fn survey(
    client: &Client,
    wanted: &[Wanted],
    replication_factor: Option<u16>,
) -> Result<Cluster, ClientError> {
    let names: Vec<String> = wanted.iter().map(|w| w.topic.clone()).collect();
    let metadata = client.metadata(Some(&names)).await?;
    let mut refused = BTreeMap::new();
    let changed = provide(client, &metadata, wanted, replication_factor, &mut refused).await?;
    let mut metadata = metadata;
    if changed {
        for _ in 0..LEADER_LOOKS_MAX {
            metadata = client.metadata(Some(&names)).await?;
            if wanted.iter().all(|w| refused.contains_key(&w.topic) || is_led(&metadata, w)) {
                break;
            }
            tokio::time::sleep(LEADER_WAIT).await;
        }
    }
    let mut cluster = Cluster { id: metadata.cluster_id.clone(), topics: BTreeMap::new() };
    for topic in metadata.topics {
        let name = topic.name.clone();
        let found = match (topic.code, refused.remove(&name)) {
            (0, None) => Ok(target(&topic)),
            (0, Some(reason)) => Err(reason),
            (code, reason) => Err(reason.unwrap_or_else(|| {
                let refusal = ClientError::Refused { code, message: String::new() };
                format!("topic {name} at the centre: {refusal}")
            })),
        };
        cluster.topics.insert(name, found);
    }
    Ok(cluster)
}

fn target(topic: &MetadataTopic) -> TargetTopic {
    let count = topic.partitions.iter().map(|p| p.id + 1).max().unwrap_or(0);
    let mut leaders = vec![None; usize::try_from(count).unwrap_or(0)];
    for p in &topic.partitions {
        if let Some(leader) = usize::try_from(p.id).ok().and_then(|id| leaders.get_mut(id)) {
            *leader = p.leader;
        }
    }
    TargetTopic { id: topic.id, leaders }
}

fn is_led(metadata: &Metadata, wanted: &Wanted) -> bool {
    metadata.topics.iter().filter(|t| t.name == wanted.topic).any(|t| {
        t.code == 0
            && t.partitions.len() >= usize::try_from(wanted.partitions).unwrap_or(0)
            && t.partitions.iter().all(|p| p.leader.is_some())
    })
}

/// Creates and grows topics. Answers whether anything was asked for; refusals go into `refused`.
async fn provide(
    client: &Client,
    metadata: &Metadata,
    wanted: &[Wanted],
    replication_factor: Option<u16>,
    refused: &mut BTreeMap<String, String>,
) -> Result<bool, ClientError> {
    let found: BTreeMap<&str, &MetadataTopic> =
        metadata.topics.iter().map(|t| (t.name.as_str(), t)).collect();
    let missing = |w: &&Wanted| {
        let code = found.get(w.topic.as_str()).map(|t| ErrorCode::from_i16(t.code));
        matches!(code, None | Some(Some(ErrorCode::UnknownTopicOrPartition)))
    };
    let new: Vec<NewTopic> = wanted
        .iter()
        .filter(missing)
        .map(|w| NewTopic {
            name: w.topic.clone(),
            partitions: w.partitions,
            replication_factor: replication_factor.and_then(|r| i16::try_from(r).ok()),
            configs: Vec::new(),
        })
        .collect();
    let short = wanted.iter().filter(|w| {
        found.get(w.topic.as_str()).is_some_and(|t| {
            t.code == 0 && t.partitions.len() < usize::try_from(w.partitions).unwrap_or(0)
        })
    });
    let short: Vec<&Wanted> = short.collect();
    if new.is_empty() && short.is_empty() {
        return Ok(false);
    }
    // Brokers of before 2.8 do not forward these to their controller.
    let controller = match client.broker(metadata.controller).await {
        Ok(connection) => connection,
        Err(_) => client.any().await?,
    };
    if !new.is_empty() {
        for outcome in controller.create_topics(&new, CREATE_TIMEOUT).await? {
            match outcome.result {
                Err(e) if e.code() != Some(ErrorCode::TopicAlreadyExists) => {
                    let reason =
                        format!("topic {} cannot be made at the centre: {e}", outcome.name);
                    refused.insert(outcome.name, reason);
                }
                _ => {}
            }
        }
    }
    for w in short {
        let grown = controller.create_partitions(&w.topic, w.partitions, CREATE_TIMEOUT).await;
        if let Err(e @ ClientError::Refused { .. }) = grown {
            let reason = format!(
                "topic {} at the centre has fewer partitions than the {} here, and cannot be grown: {e}",
                w.topic, w.partitions
            );
            refused.insert(w.topic.clone(), reason);
        } else {
            grown?;
        }
    }
    Ok(true)
}

/// One partition's question, to the node that leads it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Whose question it is.
    pub(crate) entry: usize,
    pub(crate) question: Question,
    pub(crate) source: Arc<Partition>,
}

impl Ask {
    fn at(&self) -> (StrBytes, i32) {
        (self.question.target.topic.as_str().into(), self.source.id().get())
    }
}

/// What was found out for one partition.
pub(crate) type Found = (Ask, Result<Evidence, ClientError>);

/// Answers questions about partitions that one node leads. `spare` is a producer id of this process; a newer one comes
/// back when that was not good enough.
pub(crate) async fn resolve(
    connection: &Connection,
    mut asks: Vec<Ask>,
    spare: Option<ProducerIdentity>,
) -> (Vec<Found>, Option<ProducerIdentity>) {
    asks.sort_by_key(Ask::at);
    let mut spare = spare;
    let looked = look(connection, &asks, &mut spare).await;
    let looked = match looked {
        Ok(looked) => looked,
        Err(e) => return (asks.into_iter().map(|ask| (ask, Err(e.clone()))).collect(), spare),
    };
    let mut found = Vec::with_capacity(asks.len());
    for (ask, evidence) in asks.into_iter().zip(looked) {
        let evidence = match evidence {
            Ok(evidence) => search_if_needed(connection, &ask, evidence).await,
            Err(e) => Err(e),
        };
        found.push((ask, evidence));
    }
    (found, spare)
}

/// Ends and remembered producers of all partitions at once, and a producer id where one is needed.
async fn look(
    connection: &Connection,
    asks: &[Ask],
    spare: &mut Option<ProducerIdentity>,
) -> Result<Vec<Result<Evidence, ClientError>>, ClientError> {
    let used: Vec<ProducerIdentity> = asks.iter().filter_map(|a| a.question.producer).collect();
    if asks.iter().any(|a| a.question.fresh) && spare.is_none_or(|s| used.contains(&s)) {
        *spare = Some(connection.init_producer_id().await?);
    }
    let all: Vec<(StrBytes, i32)> = asks.iter().map(Ask::at).collect();
    let known: Vec<(StrBytes, i32)> =
        asks.iter().filter(|a| a.question.producer.is_some()).map(Ask::at).collect();
    let mut ends: BTreeMap<(StrBytes, i32), Result<i64, ClientError>> = BTreeMap::new();
    for end in connection.list_offsets(&all, false).await? {
        ends.insert((end.topic, end.partition), end.offset);
    }
    let mut producers = BTreeMap::new();
    let described = match known.is_empty() {
        true => Ok(Vec::new()),
        false => connection.describe_producers(&known).await,
    };
    match described {
        Ok(described) => {
            for p in described {
                producers.insert((p.topic, p.partition), p.producers);
            }
        }
        // An older broker: the target is searched instead.
        Err(ClientError::Unsupported { .. }) => {}
        Err(e) => return Err(e),
    }
    let one = |ask: &Ask| {
        let at = ask.at();
        let missing = || connection_lost(connection, "an answer without the partition");
        let end = ends.get(&at).cloned().unwrap_or_else(|| Err(missing()))?;
        let mut evidence = Evidence { end, ..Evidence::default() };
        if let Some(described) = producers.get(&at) {
            let active = described.clone()?;
            let ours = active.iter().find(|a| Some(a.producer) == ask.question.producer);
            evidence.remembered = ours.map(|a| a.last_sequence).filter(|s| *s >= 0);
        }
        evidence.fresh = spare.filter(|_| ask.question.fresh);
        let positions = ask.source.positions();
        evidence.source_end = positions.synced.min(positions.last_stable).get();
        evidence.source_start = positions.log_start.get();
        Ok(evidence)
    };
    Ok(asks.iter().map(one).collect())
}

fn connection_lost(connection: &Connection, reason: &str) -> ClientError {
    ClientError::Protocol { address: connection.address().to_owned(), reason: reason.to_owned() }
}

async fn search_if_needed(
    connection: &Connection,
    ask: &Ask,
    mut evidence: Evidence,
) -> Result<Evidence, ClientError> {
    let Some(producer) = ask.question.producer else { return Ok(evidence) };
    if evidence.remembered.is_some() && !ask.question.scan {
        return Ok(evidence);
    }
    evidence.scanned = true;
    let (topic, partition) = ask.at();
    let mut from = FetchPartition { topic, partition, offset: ask.question.floor };
    while from.offset < evidence.end {
        let fetched = match connection.fetch(&from, SCAN_BYTES, Duration::ZERO).await {
            Ok(fetched) => fetched,
            Err(e) if e.code() == Some(ErrorCode::OffsetOutOfRange) && !evidence.floor_gone => {
                evidence.floor_gone = true;
                let at = [(from.topic.clone(), partition)];
                let start = connection.list_offsets(&at, true).await?;
                let start = start.into_iter().next();
                from.offset = start.map_or(Ok(evidence.end), |s| s.offset)?.max(from.offset);
                continue;
            }
            Err(e) => return Err(e),
        };
        let before = from.offset;
        read_headers(&fetched.records, producer, &mut from.offset, &mut evidence.found);
        if from.offset == before {
            // Compaction may leave nothing between here and the end; a whole batch would have moved us on.
            break;
        }
    }
    Ok(evidence)
}

/// Walks over whole batches: moves `offset` behind them, notes the last sequence of `producer`.
fn read_headers(
    records: &[u8],
    producer: ProducerIdentity,
    offset: &mut i64,
    found: &mut Option<i32>,
) {
    let mut rest = records;
    while let Ok(header) = BatchHeader::parse(rest) {
        let size = header.size_bytes();
        if size > rest.len() {
            return;
        }
        *offset = (*offset).max(header.last_offset() + 1);
        if (header.producer_id, header.producer_epoch) == (producer.id, producer.epoch) {
            let last = Sequence::new(header.base_sequence)
                .map(|first| first.plus(i64::from(header.last_offset_delta)).get());
            *found = last.or(*found);
        }
        rest = &rest[size..];
    }
}
