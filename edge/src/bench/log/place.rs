//! Logs to measure: a node's own default options, in a folder of the benchmark.
//!
//! Invariant: a log's folder is removed with its value. Neighbours: every table.

use anyhow::Context;
use headwater_config::Config;
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    AckPoint, AppendError, Appended, Log, LogOptions, Partition, Recovery, Settled, Topic,
    TopicName,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log in a folder of its own.
pub(super) struct Place {
    pub(super) log: Log,
    pub(super) topic: Topic,
    home: Home,
}

/// A folder that removes itself.
pub(super) struct Home(pub(super) PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // What is left is in the benchmark's own folder, which goes at the end.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As a node has them, with room for what is measured.
pub(super) fn options(dir: &Path) -> LogOptions {
    let mut options = crate::node::translate::log_options(&Config::default());
    options.dirs = vec![dir.to_owned()];
    options.partitions_max = options.partitions_max.max(20_000);
    options.max_bytes = None;
    options.min_free = None;
    options
}

/// A topic's settings: durable, nothing deleted.
pub(super) fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        batch_bytes_max: 2 << 20,
        ..TopicSettings::default()
    }
}

/// Opens what is in a folder.
pub(super) fn open(options: LogOptions) -> anyhow::Result<(Log, Recovery)> {
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).context("opening the log")
}

/// A topic of this name.
pub(super) fn create(log: &Log, name: &str, partitions: u32) -> anyhow::Result<Topic> {
    let name = TopicName::new(name).context("a topic's name")?;
    Ok(log.create_topic(&name, partitions, settings()).context("creating a topic")?.0)
}

impl Place {
    /// A new log with one topic, whose making is committed.
    pub(super) fn new(root: &Path, name: &str, partitions: u32) -> anyhow::Result<Self> {
        Self::with(root, name, partitions, |_| {})
    }

    /// As [`Place::new`], with other options.
    pub(super) fn with(
        root: &Path,
        name: &str,
        partitions: u32,
        change: impl FnOnce(&mut LogOptions),
    ) -> anyhow::Result<Self> {
        let home = Home(root.join(name));
        let mut options = options(&home.0);
        change(&mut options);
        let (log, _) = open(options)?;
        let topic = create(&log, "bench", partitions)?;
        while log.step_commit() {}
        Ok(Self { log, topic, home })
    }

    /// The log ends as in a crash: nothing more is committed nor checkpointed. Its folder stays for now.
    pub(super) fn crash(self) -> Home {
        self.home
    }

    /// Its folder, for a file beside it.
    pub(super) fn dir(&self) -> &Path {
        &self.home.0
    }

    /// Appends, running cycles where there is no room.
    pub(super) fn append_stepped(
        &self,
        partition: &Partition,
        records: &[RecordParts<'_>],
    ) -> anyhow::Result<Appended> {
        append_stepped(&self.log, partition, records)
    }

    /// Runs cycles until nothing waits.
    pub(super) fn commit(&self) -> anyhow::Result<()> {
        commit(&self.log)
    }

    /// What the checkpoint thread and the upkeep would do by now. Whether there was a checkpoint.
    pub(super) fn keep_up(&self) -> anyhow::Result<bool> {
        self.log.step_upkeep();
        let stats = self.log.stats();
        let due = stats.journal_used_bytes * 2 > stats.journal_size_bytes;
        if due {
            self.log.step_checkpoint().map_err(anyhow::Error::msg)?;
        }
        Ok(due)
    }
}

/// Appends, running cycles where there is no room.
pub(super) fn append_stepped(
    log: &Log,
    partition: &Partition,
    records: &[RecordParts<'_>],
) -> anyhow::Result<Appended> {
    loop {
        match partition.append(records) {
            Ok(appended) => return Ok(appended),
            Err(AppendError::Busy) => {
                anyhow::ensure!(log.step_commit(), "nothing to commit, and no room");
            }
            Err(other) => return Err(other.into()),
        }
    }
}

/// Runs cycles until nothing waits.
pub(super) fn commit(log: &Log) -> anyhow::Result<()> {
    while log.step_commit() {}
    match log.stats().offline {
        Some(why) => anyhow::bail!("the log is offline: {why}"),
        None => Ok(()),
    }
}

/// A record of one value.
pub(super) fn record(value: &[u8]) -> RecordParts<'_> {
    RecordParts {
        timestamp_ms: 1_800_000_000_000,
        key: None,
        value: Some(value),
        headers: Headers::EMPTY,
    }
}

/// Whether what was appended is synced.
pub(super) fn is_synced(partition: &Partition, appended: &Appended) -> anyhow::Result<bool> {
    match partition.settled(AckPoint::Synced, appended.last) {
        Settled::Passed => Ok(true),
        Settled::Waiting => Ok(false),
        Settled::Lost(loss) => anyhow::bail!("lost: {loss:?}"),
    }
}
