//! The rounds: a child writes, is killed, and what it left is opened and checked.
//!
//! Invariant: the child is ended by its own handle, and none outlives this function.

use super::Options;
use super::account::{self, Account, Random};
use super::folder::Own;
use anyhow::Context;
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::SystemDisk;
use headwater_log::inspect;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AppendError, Topic};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A child lives this long after it is open, at most; some are killed before.
const LIFE_MS_MAX: u64 = 600;
/// All records are read again every so many rounds, and at the end.
const ALL_EVERY: u64 = 25;
/// Bytes of one record of `--fill`.
const FILL_RECORD_BYTES: usize = 64 << 10;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) rounds: u64,
    pub(super) acknowledged: u64,
    /// What is missing or wrong, for people.
    pub(super) lost: Option<String>,
    /// Children that were killed before they were open.
    pub(super) cut_short: u64,
    pub(super) log_bytes: u64,
    recoveries_ms: Vec<u64>,
}

impl Outcome {
    /// Of the times that restarts took, the one that so many of them did not exceed.
    pub(super) fn recovery_ms(&self, part: f64) -> u64 {
        let mut sorted = self.recoveries_ms.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(0)
    }
}

/// Runs rounds until the time is over, the number is reached, or something is lost.
pub(super) fn run(
    folder: &Own,
    options: &Options,
    watch: &mut dyn FnMut(String),
) -> anyhow::Result<Outcome> {
    let clock = SystemClock;
    let began = clock.monotonic_ns();
    let minutes = || Duration::from_nanos(clock.monotonic_ns() - began).as_secs() / 60;
    let seed = std::env::var("HEADWATER_SEED").ok().and_then(|text| text.parse().ok());
    let mut outcome = Outcome { seed: seed.unwrap_or(clock.monotonic_ns()), ..Outcome::default() };
    let mut random = Random(outcome.seed);
    let mut account = Account::new(options.partitions);
    if options.fill > 0 {
        fill(folder, options, &mut account, watch)?;
    }
    while minutes() < options.minutes && options.rounds.is_none_or(|max| outcome.rounds < max) {
        let mut child = Killed(start(folder, options.partitions)?);
        let opened = live(&mut child, &mut account, &mut random)?;
        outcome.cut_short += u64::from(!opened);
        let asked = clock.monotonic_ns();
        let (log, topic, _) = match account::open(&folder.log(), options.partitions) {
            Ok(opened) => opened,
            Err(error) => {
                outcome.lost = Some(format!("the log does not open: {error:#}"));
                break;
            }
        };
        outcome.recoveries_ms.push((clock.monotonic_ns() - asked) / 1_000_000);
        outcome.rounds += 1;
        outcome.lost = account
            .check(&topic, outcome.rounds.is_multiple_of(ALL_EVERY) && options.fill == 0)
            .err();
        outcome.acknowledged = account.records();
        // Dropped without an end: as after a crash.
        drop(log);
        if outcome.lost.is_some() {
            break;
        }
        watch(format!(
            "{} restarts, {} records, nothing lost; restarts take {} ms",
            outcome.rounds,
            outcome.acknowledged,
            outcome.recovery_ms(0.5)
        ));
    }
    if outcome.lost.is_none() {
        outcome.lost = last_look(folder, options, &mut account, &mut outcome.log_bytes)?;
    }
    Ok(outcome)
}

/// Everything once more, and an orderly end that `verify` has nothing to say against.
fn last_look(
    folder: &Own,
    options: &Options,
    account: &mut Account,
    log_bytes: &mut u64,
) -> anyhow::Result<Option<String>> {
    let (log, topic, _) = account::open(&folder.log(), options.partitions)?;
    if let Err(lost) = account.check(&topic, options.fill == 0) {
        return Ok(Some(lost));
    }
    log.start().close().map_err(anyhow::Error::msg)?;
    drop(log);
    let clock = Arc::new(SystemClock);
    let verdict = inspect::verify(Arc::new(SystemDisk), clock, &[folder.log()], &mut |_| {})?;
    *log_bytes = verdict.figures.bytes;
    Ok(verdict.findings.iter().find(|_| !verdict.is_well()).map(ToString::to_string))
}

fn start(folder: &Own, partitions: u32) -> anyhow::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["selftest", "--write", "--partitions", &partitions.to_string()])
        .arg(folder.parent())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a writer")
}

/// Lets the child live for a while, taking its account, and kills it. Answers whether it got to write.
fn live(child: &mut Killed, account: &mut Account, random: &mut Random) -> anyhow::Result<bool> {
    let stdout = child.0.stdout.take().context("the pipe")?;
    // Every eighth is killed wherever it is, perhaps in the middle of its own recovery.
    let blind = random.next().is_multiple_of(8);
    let life = Duration::from_millis(random.next() % if blind { 60 } else { LIFE_MS_MAX });
    std::thread::scope(|scope| {
        let (open, is_open) = std::sync::mpsc::channel();
        let reader = scope.spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            // A line that does not end was cut by the kill.
            while lines.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
                if line.starts_with("open") {
                    let _ = open.send(());
                }
                account.note(line.trim_end());
                line.clear();
            }
        });
        // Ended without a word: the wait below tells why.
        let opened = !blind && is_open.recv().is_ok();
        std::thread::sleep(life);
        let status = child.0.try_wait()?;
        child.0.kill()?;
        child.0.wait()?;
        let _ = reader.join();
        anyhow::ensure!(status.is_none(), "the writer ended by itself: {status:?}");
        Ok(opened || is_open.try_recv().is_ok())
    })
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes so much log that a restart has something to find its way in.
fn fill(
    folder: &Own,
    options: &Options,
    account: &mut Account,
    watch: &mut dyn FnMut(String),
) -> anyhow::Result<()> {
    let (log, topic, _) = account::open(&folder.log(), options.partitions)?;
    let mut settings = topic.settings().clone();
    settings.retention_bytes = None;
    settings.segment_bytes = 16 << 20;
    log.alter_topic(topic.name(), settings)?;
    let running = log.start();
    let (total, mut done) = (options.fill << 30, 0);
    let value = vec![0x5a; FILL_RECORD_BYTES];
    let mut moved = log.moved();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    while done < total {
        for partition in topic.partitions() {
            let record = RecordParts {
                timestamp_ms: log.clock().wall_ms(),
                key: None,
                value: Some(&value),
                headers: Headers::EMPTY,
            };
            loop {
                moved.mark_unchanged();
                match partition.append(&[record]) {
                    Err(AppendError::Busy) => runtime.block_on(moved.changed())?,
                    other => break other.map(drop)?,
                }
            }
            done += FILL_RECORD_BYTES as u64;
        }
        watch(format!("writing {} of {} MiB first", done >> 20, total >> 20));
    }
    running.close().map_err(anyhow::Error::msg)?;
    let topic: Topic = topic;
    account.begin_at(&topic);
    Ok(())
}
