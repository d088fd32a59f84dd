//! What an uplink says about itself: for metrics, health and people.
//!
//! Invariant: lag is computed from the log's own positions when it is asked for, so it is right even while the
//! uplink's task does nothing.

use headwater_log::clock::Clock;
use headwater_log::{Hold, Partition};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an uplink is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    /// The centre, or the leader of some partition with a backlog, cannot be reached; with the last error.
    Connecting(String),
    /// Connected; what there is to send is sent.
    Streaming,
    /// Connected, and some partitions are refused by the centre; the others go on. With the first reason.
    Stopped(String),
}

/// An uplink at one moment.
#[derive(Debug, Clone)]
pub struct UplinkStatus {
    /// Its name in the config.
    pub name: String,
    /// What it is doing.
    pub state: UplinkState,
    /// The centre's cluster id, once known.
    pub cluster_id: Option<String>,
    /// Per source topic, in the order of their names.
    pub topics: Vec<TopicStatus>,
    /// Records acknowledged by the centre since this process started.
    pub acked_records: u64,
    /// Bytes of stored batches acknowledged since this process started.
    pub acked_bytes: u64,
    /// Attempts repeated since this process started: connections, questions, batches.
    pub retries: u64,
    /// Times that somebody else wrote into a target topic.
    pub foreign_steps: u64,
    /// Bytes of batches in memory: read ahead, or sent and unanswered.
    pub memory_bytes: u64,
    /// What went wrong with a partition that has made no progress since, and is tried again.
    pub last_error: Option<String>,
    /// When the centre last acknowledged something, milliseconds since the Unix epoch.
    pub last_progress_ms: Option<i64>,
}

impl UplinkStatus {
    /// Records stored here and not acknowledged by the centre.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        self.topics.iter().map(|t| t.lag_records).sum()
    }

    /// Bytes stored here and not acknowledged by the centre, to within an index interval per partition.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        self.topics.iter().map(|t| t.lag_bytes).sum()
    }

    /// Age of the oldest record that the centre has not acknowledged, zero when there is none.
    #[must_use]
    pub fn lag_ms(&self) -> u64 {
        self.topics.iter().map(|t| t.oldest_ms).max().unwrap_or(0)
    }
}

/// A source topic of an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStatus {
    /// The topic here.
    pub topic: String,
    /// The topic at the centre.
    pub target: String,
    /// Records not acknowledged.
    pub lag_records: u64,
    /// Bytes not acknowledged.
    pub lag_bytes: u64,
    /// Age of the oldest record not acknowledged, milliseconds by its timestamp; zero when there is none.
    pub oldest_ms: u64,
    /// Partitions that the centre refuses, with the reason.
    pub stopped: Vec<(i32, String)>,
}

/// Shared between an uplink's task and those who ask.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) rows: Vec<Row>,
    /// Why the centre is not reached; `None`: it is.
    pub(crate) unreachable: Option<String>,
    pub(crate) cluster_id: Option<String>,
    pub(crate) acked_records: u64,
    pub(crate) acked_bytes: u64,
    pub(crate) retries: u64,
    pub(crate) foreign_steps: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) last_progress_ms: Option<i64>,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) source: Arc<Partition>,
    pub(crate) hold: Arc<Hold>,
    pub(crate) target: String,
    /// Timestamp of the oldest record that was not acknowledged when the task last looked.
    pub(crate) oldest_ms: Option<i64>,
    pub(crate) stopped: Option<String>,
    /// The topic was deleted here.
    pub(crate) gone: bool,
}

impl Shared {
    pub(crate) fn status(&self, name: &str, clock: &dyn Clock) -> UplinkStatus {
        let now = clock.wall_ms();
        let state = self.state.lock();
        let mut topics: BTreeMap<&str, TopicStatus> = BTreeMap::new();
        for row in state.rows.iter().filter(|row| !row.gone) {
            let topic = row.source.topic().as_str();
            let status = topics.entry(topic).or_insert_with(|| TopicStatus {
                topic: topic.to_owned(),
                target: row.target.clone(),
                lag_records: 0,
                lag_bytes: 0,
                oldest_ms: 0,
                stopped: Vec::new(),
            });
            let end = row.source.positions().high_watermark.get();
            let reached = row.hold.reached();
            let lag = u64::try_from(end - reached.get()).unwrap_or(0);
            if lag > 0 {
                status.lag_records += lag;
                status.lag_bytes += row.source.bytes_after(reached);
                let age = row.oldest_ms.map_or(0, |at| u64::try_from(now - at).unwrap_or(0));
                status.oldest_ms = status.oldest_ms.max(age);
            }
            if let Some(reason) = &row.stopped {
                status.stopped.push((row.source.id().get(), reason.clone()));
            }
        }
        let topics: Vec<TopicStatus> = topics.into_values().collect();
        let stopped = topics.iter().flat_map(|t| &t.stopped).map(|(_, reason)| reason).next();
        let state_now = match (&state.unreachable, stopped) {
            (Some(error), _) => UplinkState::Connecting(error.clone()),
            (None, Some(reason)) => UplinkState::Stopped(reason.clone()),
            (None, None) => UplinkState::Streaming,
        };
        UplinkStatus {
            name: name.to_owned(),
            state: state_now,
            cluster_id: state.cluster_id.clone(),
            acked_records: state.acked_records,
            acked_bytes: state.acked_bytes,
            retries: state.retries,
            foreign_steps: state.foreign_steps,
            memory_bytes: state.memory_bytes,
            last_error: state.last_error.clone(),
            last_progress_ms: state.last_progress_ms,
            topics,
        }
    }
}
