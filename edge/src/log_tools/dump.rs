//! `headwater log dump DIR`: records (the default), batches, indexes, the journal, the catalog.

use super::printed::{hex, text, value};
use super::{Output, WRONG, print_line};
use headwater_bridge::record;
use headwater_log::batch::{self, BatchHeader};
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::{Disk, SystemDisk};
use headwater_log::inspect::{self, BatchAt, CatalogSlot, Cycle, CycleFrame, Dump, InspectError};
use headwater_log::record::Record;
use headwater_log::{Offset, Partition, ReadError, ReadLimit};
use headwater_mqtt::StreamId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
        Err(End::Failed(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(WRONG)
        }
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
        let mut end = None;
        let _ = dump.batches(&segment, &mut |found| {
            if let Ok(header) = &found.header
                && !inside(options, header.base_offset, header.last_offset())
            {
                return ControlFlow::Continue(());
            }
            well &= found.header.is_ok();
            match line(options, || batch_text(partition, &found), || batch_json(partition, &found))
            {
                Ok(()) => ControlFlow::Continue(()),
                Err(stop) => {
                    end = Some(stop);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(end) = end {
            return Err(end);
        }
    }
    Ok(well)
}

fn batch_text(partition: &Partition, found: &BatchAt) -> String {
    let (topic, number, place) = (partition.topic(), partition.id().get(), &found.place);
    let place = format!("{} byte {}", place.file.display(), place.byte);
    match &found.header {
        Err(why) => format!("{topic}-{number} {place}: DAMAGED: {why}"),
        Ok(h) => format!(
            "{topic}-{number} offsets {}..{} records {} epoch {} bytes {} codec {:?} attributes {:#x} times {}..{} producer {} epoch {} sequence {} crc {:08x} {place}",
            h.base_offset,
            h.last_offset(),
            h.record_count,
            h.partition_leader_epoch,
            h.size_bytes(),
            h.codec(),
            h.attributes,
            h.base_timestamp,
            h.max_timestamp,
            h.producer_id,
            h.producer_epoch,
            h.base_sequence,
            h.crc,
        ),
    }
}

fn batch_json(partition: &Partition, found: &BatchAt) -> Value {
    let mut object = json!({
        "topic": partition.topic().as_str(),
        "partition": partition.id().get(),
        "file": found.place.file,
        "byte": found.place.byte,
    });
    match &found.header {
        Err(why) => object["damage"] = json!(why.to_string()),
        Ok(h) => {
            object["base_offset"] = json!(h.base_offset);
            object["last_offset"] = json!(h.last_offset());
            object["records"] = json!(h.record_count);
            object["leader_epoch"] = json!(h.partition_leader_epoch);
            object["bytes"] = json!(h.size_bytes());
            object["codec"] = json!(format!("{:?}", h.codec()).to_lowercase());
            object["attributes"] = json!(h.attributes);
            object["control"] = json!(h.is_control());
            object["transactional"] = json!(h.is_transactional());
            object["base_timestamp_ms"] = json!(h.base_timestamp);
            object["max_timestamp_ms"] = json!(h.max_timestamp);
            object["producer_id"] = json!(h.producer_id);
            object["producer_epoch"] = json!(h.producer_epoch);
            object["base_sequence"] = json!(h.base_sequence);
            object["crc"] = json!(format!("{:08x}", h.crc));
        }
    }
    object
}

fn indexes(options: &Options, dump: &Dump, partition: &Partition) -> Result<bool, End> {
    let (topic, number) = (partition.topic(), partition.id().get());
    for segment in dump.segments(partition) {
        if !inside(options, segment.base, segment.end) {
            continue;
        }
        let mut end = None;
        let _ = dump.index(&segment, &mut |entry| {
            let heard = line(
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
            );
            match heard {
                Ok(()) => ControlFlow::Continue(()),
                Err(stop) => {
                    end = Some(stop);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(end) = end {
            return Err(end);
        }
    }
    Ok(true)
}

fn journal(options: &Options, disk: Arc<dyn Disk>) -> Result<bool, End> {
    // Names are a help: without a catalog that starts, handles stay numbers.
    let names = Dump::open(Arc::clone(&disk), Arc::new(SystemClock), &options.dirs);
    let names = names.map(|dump| dump.handles()).unwrap_or_default();
    let (mut well, mut end) = (true, None);
    for dir in &options.dirs {
        inspect::cycles(Arc::clone(&disk), dir, &mut |cycle| {
            well &= cycle.frames.is_some();
            match line(options, || cycle_text(&cycle, &names), || cycle_json(&cycle, &names)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(stop) => {
                    end = Some(stop);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(end) = end.take() {
            return Err(end);
        }
    }
    Ok(well)
}

type Names = BTreeMap<u64, (String, i32)>;

fn name(names: &Names, handle: u64) -> String {
    match names.get(&handle) {
        Some((topic, partition)) => format!("{topic}-{partition}"),
        None => format!("partition with handle {handle:x}"),
    }
}

fn cycle_text(cycle: &Cycle, names: &Names) -> String {
    let mut out = format!(
        "cycle {} generation {} synced through {} bytes {} {}{} byte {}",
        cycle.number,
        cycle.generation,
        cycle.synced_through,
        cycle.length,
        if cycle.is_needed { "" } else { "(checkpointed) " },
        cycle.place.file.display(),
        cycle.place.byte,
    );
    let Some(frames) = &cycle.frames else { return out + ": DAMAGED: its frames are not whole" };
    for frame in frames {
        out += "\n  ";
        out += &match frame {
            CycleFrame::Metadata { sequence, record } => format!("metadata {sequence}: {record}"),
            CycleFrame::LogStart { handle, offset } => {
                format!("{}: log start {offset}", name(names, *handle))
            }
            CycleFrame::Batches { handle, batches, offsets, bytes } => {
                let range = offsets.map_or(String::new(), |(a, b)| format!(", offsets {a}..{b}"));
                format!("{}: {batches} batches, {bytes} bytes{range}", name(names, *handle))
            }
            CycleFrame::Extent { handle, offsets: (a, b), segment, byte, bytes } => format!(
                "{}: {bytes} bytes in segment {segment} at byte {byte}, offsets {a}..{b}",
                name(names, *handle)
            ),
            CycleFrame::Ends(ends) => format!("{} partitions in the cycle before", ends.len()),
            CycleFrame::Other(text) => text.clone(),
        };
    }
    out
}

fn cycle_json(cycle: &Cycle, names: &Names) -> Value {
    let of = |handle: u64| {
        let known = names.get(&handle);
        json!({
            "handle": handle,
            "topic": known.map(|(topic, _)| topic),
            "partition": known.map(|(_, partition)| partition),
        })
    };
    let frame = |frame: &CycleFrame| match frame {
        CycleFrame::Metadata { sequence, record } => {
            json!({ "kind": "metadata", "sequence": sequence, "record": record })
        }
        CycleFrame::LogStart { handle, offset } => {
            json!({ "kind": "log_start", "of": of(*handle), "offset": offset })
        }
        CycleFrame::Batches { handle, batches, offsets, bytes } => json!({
            "kind": "batches",
            "of": of(*handle),
            "batches": batches,
            "first_offset": offsets.map(|(first, _)| first),
            "last_offset": offsets.map(|(_, last)| last),
            "bytes": bytes,
        }),
        CycleFrame::Extent { handle, offsets: (first, last), segment, byte, bytes } => json!({
            "kind": "extent",
            "of": of(*handle),
            "first_offset": first,
            "last_offset": last,
            "segment": segment,
            "byte": byte,
            "bytes": bytes,
        }),
        CycleFrame::Ends(ends) => {
            let ends = ends.iter().map(
                |(handle, first, end)| json!({ "of": of(*handle), "first": first, "end": end }),
            );
            json!({ "kind": "ends", "ends": ends.collect::<Vec<_>>() })
        }
        CycleFrame::Other(text) => json!({ "kind": "other", "text": text }),
    };
    json!({
        "file": cycle.place.file,
        "byte": cycle.place.byte,
        "generation": cycle.generation,
        "number": cycle.number,
        "synced_through": cycle.synced_through,
        "length": cycle.length,
        "needed": cycle.is_needed,
        "damaged": cycle.frames.is_none(),
        "frames": cycle.frames.iter().flatten().map(frame).collect::<Vec<_>>(),
    })
}

fn catalog_text(slot: &CatalogSlot) -> String {
    let file = slot.file.display();
    let Some(sequence) = slot.sequence else { return format!("{file}: missing or damaged") };
    let mut out = format!(
        "{file}: checkpoint {sequence}, {}, covers cycle {} of generation {}, log clock {}",
        if slot.clean { "an orderly end" } else { "in the middle of a run" },
        slot.cycle,
        slot.generation,
        slot.log_clock_ms
    );
    for (name, id, settings, handles) in &slot.topics {
        out += &format!("\n  topic {name} id {} handles {handles:x?} {settings:?}", hex(id));
    }
    for (handle, start, end, segments, bytes) in &slot.partitions {
        out += &format!(
            "\n  partition {handle:x}: offsets {start} to {end} (exclusive), {segments} segments, {bytes} bytes"
        );
    }
    out
}

fn catalog(slot: &CatalogSlot) -> Value {
    json!({
        "file": slot.file,
        "intact": slot.sequence.is_some(),
        "sequence": slot.sequence,
        "clean": slot.clean,
        "cycle": slot.cycle,
        "generation": slot.generation,
        "log_clock_ms": slot.log_clock_ms,
        "topics": slot.topics.iter().map(|(name, id, settings, handles)| json!({
            "name": name,
            "id": hex(id),
            "settings": format!("{settings:?}"),
            "handles": handles,
        })).collect::<Vec<_>>(),
        "partitions": slot.partitions.iter().map(|(handle, start, end, segments, bytes)| json!({
            "handle": handle,
            "log_start": start,
            "end": end,
            "segments": segments,
            "bytes": bytes,
        })).collect::<Vec<_>>(),
    })
}
