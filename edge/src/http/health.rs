//! Health, judged by the progress of offsets and commits, not by open sockets (ARCHITECTURE.md, invariant 13).
//!
//! Invariant: a bad answer always has its reason. Neighbours: the background thread calls [`Progress::look`] once a
//! second; `/health` and `/health/ready` ask here.

use crate::node::Parts;
use headwater_bridge::uplink::{UplinkState, UplinkStatus};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An append that is not committed for so long means that commits stand still.
const COMMIT_STALLED: Duration = Duration::from_secs(5);

/// A backlog that nobody has taken from for so long means that an uplink stands still.
const UPLINK_STALLED: Duration = Duration::from_secs(60);

/// When each uplink last made progress.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    uplinks: Mutex<BTreeMap<String, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    acked: u64,
    /// Monotonic time at which it moved last, or had nothing to do.
    moved_ns: u64,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Notes where the uplinks are.
    pub(crate) fn look(&self, statuses: &[UplinkStatus], now_ns: u64) {
        for status in statuses {
            self.note(&status.name, status.lag_records(), status.acked_records, now_ns);
        }
    }

    fn note(&self, uplink: &str, lag_records: u64, acked: u64, now_ns: u64) {
        let mut uplinks = self.uplinks.lock();
        let seen = uplinks.entry(uplink.to_owned()).or_insert(Seen { acked, moved_ns: now_ns });
        if lag_records == 0 || acked != seen.acked {
            *seen = Seen { acked, moved_ns: now_ns };
        }
    }

    /// How long an uplink with a backlog has not moved.
    fn stands_for(&self, uplink: &str, now_ns: u64) -> Duration {
        let moved_ns = self.uplinks.lock().get(uplink).map_or(now_ns, |seen| seen.moved_ns);
        Duration::from_nanos(now_ns.saturating_sub(moved_ns))
    }
}

/// The answer of `/health`.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) reasons: Vec<String>,
    facts: Value,
}

impl Judged {
    pub(super) fn into_json(self) -> Value {
        let mut facts = self.facts;
        facts["status"] = json!(if self.reasons.is_empty() { "ok" } else { "bad" });
        facts["reasons"] = json!(self.reasons);
        facts
    }
}

/// Judges a node at this moment.
pub(super) fn judge(parts: &Parts, progress: &Progress) -> Judged {
    let stats = parts.log.stats();
    let now_ns = parts.clock.monotonic_ns();
    let mut reasons = Vec::new();
    if let Some(why) = &stats.offline {
        reasons.push(format!("the log is offline: {why}"));
    }
    for directory in stats.directories.iter().filter(|_| stats.offline.is_none()) {
        if let Some(why) = &directory.offline {
            let path = directory.path.display();
            reasons.push(format!("data directory {path} is offline: {why}"));
        }
    }
    if stats.disk_full {
        reasons.push("the disk is full: publishers are refused".to_owned());
    }
    reasons.extend(stats.damage.iter().cloned());
    let waiting = Duration::from_nanos(stats.oldest_uncommitted_ns);
    if waiting > COMMIT_STALLED {
        reasons
            .push(format!("commits stand still: an append waits for {} ms", waiting.as_millis()));
    }
    let mut uplinks = Vec::new();
    for status in parts.uplinks.lock().statuses() {
        let (name, records) = (&status.name, status.lag_records());
        let stands = progress.stands_for(name, now_ns);
        let (state, detail) = match &status.state {
            UplinkState::Connecting(why) => ("connecting", Some(why)),
            UplinkState::Streaming => ("streaming", None),
            UplinkState::Stopped(why) => ("stopped", Some(why)),
        };
        if records > 0 && stands > UPLINK_STALLED {
            let s = stands.as_secs();
            let why = detail.map_or(String::new(), |why| format!(": {why}"));
            reasons.push(format!(
                "uplink {name} has not moved for {s} s, {records} records behind{why}"
            ));
        } else if let UplinkState::Stopped(why) = &status.state {
            reasons.push(format!("the centre of uplink {name} refuses a partition: {why}"));
        }
        uplinks.push(json!({
            "name": name,
            "state": state,
            "detail": detail,
            "cluster_id": status.cluster_id,
            "lag_records": records,
            "lag_bytes": status.lag_bytes(),
            "lag_ms": status.lag_ms(),
            "acknowledged_records": status.acked_records,
            "idle_ms": if records > 0 { as_ms(stands) } else { 0 },
            "last_error": status.last_error,
        }));
    }
    let facts = json!({
        "clock_trusted": parts.clock.is_trusted(),
        "log": {
            "commits": stats.cycles,
            "oldest_uncommitted_ms": as_ms(waiting),
            "uncommitted_bytes": stats.uncommitted_bytes,
            "journal_used_bytes": stats.journal_used_bytes,
            "journal_size_bytes": stats.journal_size_bytes,
            "offline": stats.offline,
            "disk_full": stats.disk_full,
            "directories": stats.directories.iter().map(|d| json!({
                "path": d.path.display().to_string(),
                "number": d.number,
                "offline": d.offline,
                "disk_full": d.disk_full,
            })).collect::<Vec<_>>(),
        },
        "uplinks": uplinks,
    });
    Judged { reasons, facts }
}

/// Why devices should not be sent here; `None` when they may.
pub(super) fn why_not_ready(parts: &Parts) -> Option<String> {
    let stats = parts.log.stats();
    match stats.offline {
        Some(why) => Some(format!("the log is offline: {why}")),
        None if stats.disk_full => Some("the disk is full".into()),
        None => None,
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_stands_only_while_it_has_a_backlog() {
        let progress = Progress::new();
        const S: u64 = 1_000_000_000;
        progress.note("dc", 5, 10, S);
        progress.note("dc", 9, 10, 61 * S);
        assert_eq!(progress.stands_for("dc", 61 * S), Duration::from_secs(60));
        progress.note("dc", 9, 11, 62 * S);
        assert_eq!(progress.stands_for("dc", 63 * S), Duration::from_secs(1));
        progress.note("dc", 0, 11, 100 * S);
        assert_eq!(progress.stands_for("dc", 100 * S), Duration::ZERO);
        assert_eq!(progress.stands_for("unknown", 100 * S), Duration::ZERO);
    }
}
