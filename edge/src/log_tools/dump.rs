//! `headwater log dump DIR`: records (the default), batches, indexes, the journal, the catalog.

use super::printed::{text, value};
use super::shown::{batch_json, batch_text, catalog, catalog_text, cycle_json, cycle_text};
use super::{Output, print_line, refuse};
use headwater_bridge::record;
use headwater_log::batch::{self, BatchHeader};
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::{Disk, SystemDisk};
use headwater_log::inspect::{self, BatchAt, Cycle, Dump, IndexEntry, InspectError};
use headwater_log::record::Record;
use headwater_log::{Offset, Partition, ReadError, ReadLimit};
use headwater_mqtt::StreamId;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes of one read of the log.
const READ_BYTES: usize = 1 << 20;

/// Options of `log dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Data directory (`storage.dir`); all of them where a node has several.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Only this topic; internal ones too, such as __headwater_ledger.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// From this offset on.
    #[arg(long, value_name = "OFFSET")]
    from: Option<i64>,
    /// Up to this offset, inclusive.
    #[arg(long, value_name = "OFFSET")]
    to: Option<i64>,
    #[command(flatten)]
    what: What,
    /// How it is written: text, or one JSON object per line.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "one flag each, of which at most one is given")]
struct What {
    /// Every record [the default].
    #[arg(long)]
    records: bool,
    /// Every batch, with all fields of its header and where it stands.
    #[arg(long)]
    batches: bool,
    /// Every entry of the offset indexes.
    #[arg(long)]
    indexes: bool,
    /// Every cycle of the journal with its frames, also those that are checkpointed.
    #[arg(long)]
    journal: bool,
    /// Both slots of the catalog, with the topics' metadata.
    #[arg(long)]
    catalog: bool,
}

/// What ends a dump early.
enum End {
    /// Nobody reads any more.
    Deaf,
    Failed(InspectError),
}

impl From<InspectError> for End {
    fn from(error: InspectError) -> Self {
        Self::Failed(error)
    }
}

pub(super) fn run(options: &Options) -> ExitCode {
    match dump(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(End::Deaf) => ExitCode::SUCCESS,
        Err(End::Failed(error)) => refuse(&error),
    }
}

/// `Ok(false)`: something was damaged and is said where it stands.
fn dump(options: &Options) -> Result<bool, End> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    if options.what.journal {
        return journal(options, disk);
    }
    let clock = Arc::new(SystemClock);
    let dump = Dump::open(disk, Arc::clone(&clock) as Arc<dyn Clock>, &options.dirs)?;
    if options.what.catalog {
        for slot in dump.catalogs() {
            line(options, || catalog_text(&slot), || catalog(&slot))?;
        }
        return Ok(true);
    }
    let mut well = true;
    let mut any = false;
    for topic in dump.log().topics() {
        if options.topic.as_ref().is_some_and(|wanted| wanted != topic.name().as_str()) {
            continue;
        }
        for partition in topic.partitions() {
            if options.partition.is_some_and(|wanted| wanted != partition.id().get()) {
                continue;
            }
            any = true;
            well &= match () {
                () if options.what.batches => batches(options, &dump, partition)?,
                () if options.what.indexes => indexes(options, &dump, partition)?,
                () => records(options, partition, clock.wall_ms())?,
            };
        }
    }
    if !any {
        let why = "it has no such topic and partition".to_owned();
        return Err(End::Failed(InspectError::NotADirectory { dir: options.dirs[0].clone(), why }));
    }
    Ok(well)
}

fn line(
    options: &Options,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> Value,
) -> Result<(), End> {
    let heard = match options.output {
        Output::Text => print_line(&text()),
        Output::Json => print_line(&json().to_string()),
    };
    if heard { Ok(()) } else { Err(End::Deaf) }
}

/// Shows all that a walk meets, until nobody reads any more.
fn each<T, R>(
    walk: impl FnOnce(&mut dyn FnMut(T) -> ControlFlow<()>) -> Result<R, InspectError>,
    mut show: impl FnMut(T) -> Result<(), End>,
) -> Result<(), End> {
    let mut end = None;
    walk(&mut |item| match show(item) {
        Ok(()) => ControlFlow::Continue(()),
        Err(stop) => {
            end = Some(stop);
            ControlFlow::Break(())
        }
    })?;
    end.map_or(Ok(()), Err)
}

/// Every record through the log's reader; what cannot be read is said, and read on behind it.
fn records(options: &Options, partition: &Partition, now_ms: i64) -> Result<bool, End> {
    let positions = partition.positions();
    let start = positions.log_start.max(Offset::new(options.from.unwrap_or(0)).unwrap_or_default());
    let end = options.to.map_or(positions.high_watermark.get(), |to| {
        positions.high_watermark.get().min(to.saturating_add(1))
    });
    let (mut next, mut well) = (start, true);
    while next.get() < end {
        let read = match partition.read(next, READ_BYTES, ReadLimit::HighWatermark) {
            Ok(read) => read,
            Err(error) => {
                well = false;
                damage(options, partition, next, &error.to_string())?;
                match behind(&error) {
                    Some(good) if good > next => next = good,
                    _ => return Ok(false),
                }
                continue;
            }
        };
        for bytes in &read.batches {
            let parsed = BatchHeader::parse(bytes).and_then(|h| Ok((h, batch::records(bytes)?)));
            let (header, found) = match parsed {
                Ok(parsed) => parsed,
                Err(error) => {
                    well = false;
                    damage(options, partition, next, &error.to_string())?;
                    continue;
                }
            };
            for record in found {
                match record {
                    Ok(record) if record.offset < start.get() => {}
                    Ok(record) if record.offset >= end => return Ok(well),
                    Ok(record) => one(options, partition, &header, &record, now_ms)?,
                    Err(error) => {
                        well = false;
                        damage(options, partition, next, &error.to_string())?;
                    }
                }
            }
        }
        if read.next <= next {
            break;
        }
        next = read.next;
    }
    Ok(well)
}

/// Where reading goes on behind damage.
fn behind(error: &ReadError) -> Option<Offset> {
    match error {
        ReadError::Damaged { next_good, .. } => *next_good,
        _ => None,
    }
}

fn damage(options: &Options, partition: &Partition, at: Offset, why: &str) -> Result<(), End> {
    let (topic, number) = (partition.topic(), partition.id().get());
    line(
        options,
        || format!("{topic}-{number} offset {at}: DAMAGED: {why}"),
        || json!({ "topic": topic.as_str(), "partition": number, "offset": at.get(), "damage": why }),
    )
}

fn one(
    options: &Options,
    partition: &Partition,
    header: &BatchHeader,
    record: &Record,
    now_ms: i64,
) -> Result<(), End> {
    let (topic, number) = (partition.topic(), partition.id().get());
    line(
        options,
        || {
            let part = |bytes: &Option<bytes::Bytes>| bytes.as_deref().map_or("null".into(), text);
            let mut out = format!(
                "{topic}-{number} offset {} time {} key {} value {}",
                record.offset,
                record.timestamp_ms,
                part(&record.key),
                part(&record.value)
            );
            for (name, value) in record.headers.iter().filter(|(name, _)| name != record::HW) {
                out += &format!(" {}={}", text(name), part(value));
            }
            if header.is_control() {
                out += " (transaction marker)";
            }
            if let Some(mqtt) = mqtt(header, record, now_ms) {
                out += &format!(" mqtt {mqtt}");
            }
            out
        },
        || {
            let headers = record.headers.iter();
            let headers = headers.map(|(n, v)| json!([value(Some(n)), value(v.as_deref())]));
            json!({
                "topic": topic.as_str(),
                "partition": number,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "key": value(record.key.as_deref()),
                "value": value(record.value.as_deref()),
                "headers": headers.collect::<Vec<_>>(),
                "control": header.is_control(),
                "mqtt": mqtt(header, record, now_ms),
            })
        },
    )
}

/// What the record is to MQTT, as its header `hw` says: nothing where it was not made from a PUBLISH here.
fn mqtt(header: &BatchHeader, record: &Record, now_ms: i64) -> Option<Value> {
    if !header.is_made_here() || record.headers.last()?.0 != record::HW {
        return None;
    }
    Some(match record::read(record, StreamId(0), now_ms) {
        Ok(message) => json!({
            "topic": &*message.topic,
            "qos": message.qos as u8,
            "retain": message.retain,
        }),
        Err(hidden) => json!({ "hidden": format!("{hidden:?}") }),
    })
}

fn inside(options: &Options, first: i64, last: i64) -> bool {
    options.from.is_none_or(|from| last >= from) && options.to.is_none_or(|to| first <= to)
}

fn batches(options: &Options, dump: &Dump, partition: &Partition) -> Result<bool, End> {
    let mut well = true;
    for segment in dump.segments(partition) {
        if !inside(options, segment.base, segment.end) {
            continue;
        }
        each(
            |then| dump.batches(&segment, then),
            |found: BatchAt| {
                if let Ok(header) = &found.header
                    && !inside(options, header.base_offset, header.last_offset())
                {
                    return Ok(());
                }
                well &= found.header.is_ok();
                line(options, || batch_text(partition, &found), || batch_json(partition, &found))
            },
        )?;
    }
    Ok(well)
}

fn indexes(options: &Options, dump: &Dump, partition: &Partition) -> Result<bool, End> {
    let (topic, number) = (partition.topic(), partition.id().get());
    for segment in dump.segments(partition) {
        if !inside(options, segment.base, segment.end) {
            continue;
        }
        each(
            |then| dump.index(&segment, then),
            |entry: IndexEntry| {
                line(
                    options,
                    || {
                        let file = entry.place.file.display();
                        format!(
                            "{topic}-{number} offset {} at byte {} ({file})",
                            entry.offset, entry.position
                        )
                    },
                    || {
                        json!({
                            "topic": topic.as_str(),
                            "partition": number,
                            "file": entry.place.file,
                            "byte": entry.place.byte,
                            "offset": entry.offset,
                            "position": entry.position,
                        })
                    },
                )
            },
        )?;
    }
    Ok(true)
}

fn journal(options: &Options, disk: Arc<dyn Disk>) -> Result<bool, End> {
    // Names are a help: without a catalog that starts, handles stay numbers.
    let names = Dump::open(Arc::clone(&disk), Arc::new(SystemClock), &options.dirs);
    let names = names.map(|dump| dump.handles()).unwrap_or_default();
    let mut well = true;
    for dir in &options.dirs {
        each(
            |then| inspect::cycles(Arc::clone(&disk), dir, then),
            |cycle: Cycle| {
                well &= cycle.frames.is_some();
                line(options, || cycle_text(&cycle, &names), || cycle_json(&cycle, &names))
            },
        )?;
    }
    Ok(well)
}
