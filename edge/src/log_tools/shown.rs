//! What `headwater log dump` prints of a batch, a cycle of the journal and a slot of the catalog: as text, and for programs.

use super::printed::hex;
use headwater_log::Partition;
use headwater_log::inspect::{BatchAt, CatalogSlot, Cycle, CycleFrame};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn batch_text(partition: &Partition, found: &BatchAt) -> String {
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

pub(super) fn batch_json(partition: &Partition, found: &BatchAt) -> Value {
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

pub(super) type Names = BTreeMap<u64, (String, i32)>;

fn name(names: &Names, handle: u64) -> String {
    match names.get(&handle) {
        Some((topic, partition)) => format!("{topic}-{partition}"),
        None => format!("partition with handle {handle:x}"),
    }
}

pub(super) fn cycle_text(cycle: &Cycle, names: &Names) -> String {
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

pub(super) fn cycle_json(cycle: &Cycle, names: &Names) -> Value {
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

pub(super) fn catalog_text(slot: &CatalogSlot) -> String {
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

pub(super) fn catalog(slot: &CatalogSlot) -> Value {
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
