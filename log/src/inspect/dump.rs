//! `headwater log dump`: what stands in a directory, item by item, for people and programs to read.
//!
//! Records come through the log's own reader, of the state that a start would come to; batches, indexes, the journal and the
//! catalogs as they lie in their files. Items are handed out one at a time, so that memory does not grow with the log.
//!
//! Invariant: what is damaged is handed out as damage, and what stands behind it follows.
//! Neighbours: [`super::survey`] opens, the command line prints.

use super::overlay::Overlay;
use super::segment::{Bounds, Step, Walk};
use super::survey::{self, InspectError, Survey, refused};
use crate::batch::{BatchError, BatchHeader};
use crate::catalog::Found;
use crate::clock::Clock;
use crate::disk::{Disk, OpenMode, read_full_at};
use crate::encoding::crc32c;
use crate::journal::cycle::{self, Frame, Header};
use crate::journal::{self, BLOCK_BYTES};
use crate::metadata::{MetadataRecord, TopicSettings};
use crate::segment::path;
use crate::{Log, Partition, Recovery};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory, opened for reading. No other process can start on it meanwhile.
pub struct Dump {
    surveys: Vec<Survey>,
    log: Log,
    recovery: Recovery,
    disk: Arc<Overlay>,
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("log", &self.log).finish_non_exhaustive()
    }
}

/// A byte of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The byte in it.
    pub byte: u64,
}

/// A segment, as the catalog has it.
#[derive(Debug, Clone)]
pub struct SegmentAt {
    /// Its first offset.
    pub base: i64,
    /// Where the next one begins, or the log ends (exclusive).
    pub end: i64,
    /// The `.log` file.
    pub file: PathBuf,
    /// Bytes of it that count.
    pub bytes: u64,
    /// Largest timestamp of a record in it.
    pub max_timestamp: i64,
}

/// What stands at one place of a segment.
#[derive(Debug, Clone)]
pub struct BatchAt {
    /// Where.
    pub place: Place,
    /// The batch's header, or what is wrong.
    pub header: Result<BatchHeader, BatchError>,
}

/// One entry of a segment's offset index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Where it stands.
    pub place: Place,
    /// The last offset of a batch.
    pub offset: i64,
    /// The byte of the `.log` where that batch begins.
    pub position: u32,
}

/// One cycle of the journal.
#[derive(Debug, Clone)]
pub struct Cycle {
    /// Where it stands.
    pub place: Place,
    /// Which run of the node wrote it.
    pub generation: u64,
    /// Its number.
    pub number: u64,
    /// All cycles up to here had been synced when it was written.
    pub synced_through: u64,
    /// Bytes of its frames.
    pub length: u32,
    /// A start would apply it again: it is newer than the last checkpoint.
    pub is_needed: bool,
    /// Its frames; `None` when their CRC is wrong or they do not parse.
    pub frames: Option<Vec<CycleFrame>>,
}

/// One frame of a cycle.
#[derive(Debug, Clone)]
pub enum CycleFrame {
    /// A change of metadata.
    Metadata {
        /// Its number.
        sequence: u64,
        /// What it says.
        record: String,
    },
    /// Records below this offset were deleted.
    LogStart {
        /// Of which partition.
        handle: u64,
        /// The first that stays.
        offset: i64,
    },
    /// Record batches of one partition.
    Batches {
        /// Of which partition.
        handle: u64,
        /// Their number.
        batches: u32,
        /// First and last offset.
        offsets: Option<(i64, i64)>,
        /// Their bytes.
        bytes: u64,
    },
    /// Record batches of one partition that are in their segment only.
    Extent {
        /// Of which partition.
        handle: u64,
        /// First and last offset.
        offsets: (i64, i64),
        /// Base offset of the segment.
        segment: i64,
        /// Where in it they begin.
        byte: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// What the cycle before committed: partition, first offset and end of each.
    Ends(Vec<(u64, i64, i64)>),
    /// Any other, in the engine's own words.
    Other(String),
}

/// One slot of the catalog.
#[derive(Debug, Clone)]
pub struct CatalogSlot {
    /// The file.
    pub file: PathBuf,
    /// The checkpoint's number; `None`: the slot is missing or damaged.
    pub sequence: Option<u64>,
    /// It was written by an orderly end.
    pub clean: bool,
    /// The journal's cycle that it covers.
    pub cycle: u64,
    /// The generation of that cycle.
    pub generation: u64,
    /// The log clock, milliseconds since the Unix epoch.
    pub log_clock_ms: i64,
    /// Topics in it: name, id, settings, and the handle of each partition.
    pub topics: Vec<(String, [u8; 16], TopicSettings, Vec<u64>)>,
    /// Partitions in it: handle, log start, end, number of segments, bytes of them.
    pub partitions: Vec<(u64, i64, i64, usize, u64)>,
}

impl Dump {
    /// Opens the directories of a log that no process uses.
    ///
    /// # Errors
    /// [`InspectError`], also where a start would fail.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dirs: &[PathBuf],
    ) -> Result<Self, InspectError> {
        let surveys = survey::take_all(&disk, dirs)?;
        if let Some(bad) = surveys.iter().find(|s| s.was_never_made() || s.catalog().is_none()) {
            let why = "it has no catalog that can be read; `headwater log verify` tells more";
            let (dir, why) = (bad.dir.clone(), why.to_owned());
            return Err(InspectError::NotADirectory { dir, why });
        }
        let (log, recovery, disk) = survey::start(&disk, dirs, clock).map_err(refused)?;
        Ok(Self { surveys, log, recovery, disk })
    }

    /// The log: topics, partitions and their readers. What is written to it is forgotten.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What a start found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The segments of a partition, in order.
    #[must_use]
    pub fn segments(&self, partition: &Partition) -> Vec<SegmentAt> {
        let (segments, _) = partition.segments_and_checkpoint();
        let end = partition.positions().log_end;
        let ends = segments.iter().skip(1).map(|s| s.base()).chain([end]);
        let described = segments.iter().zip(ends).map(|(segment, end)| SegmentAt {
            base: segment.base().get(),
            end: end.get(),
            file: path(partition.folder(), segment.base(), "log"),
            bytes: segment.written(),
            max_timestamp: segment.times().max_timestamp,
        });
        described.collect()
    }

    /// Every batch of a segment in its order, and what is no batch. `ControlFlow::Break` ends it.
    ///
    /// # Errors
    /// The system's.
    pub fn batches(
        &self,
        segment: &SegmentAt,
        then: &mut dyn FnMut(BatchAt) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, InspectError> {
        let io = InspectError::io(&segment.file);
        let file = self.disk.open(&segment.file, OpenMode::Read).map_err(&io)?;
        // What is a hole is for `verify` to judge.
        let bounds = Bounds { base: segment.base, end: segment.end, holes: true };
        let mut walk = Walk::new(&*file, bounds, segment.bytes);
        while let Some(step) = walk.next().map_err(&io)? {
            let (byte, header) = match step {
                Step::Batch(whole) => (whole.byte, Ok(whole.header)),
                Step::Damage { byte, why, .. } => (byte, Err(why)),
            };
            let place = Place { file: segment.file.clone(), byte };
            if then(BatchAt { place, header }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Every entry of a segment's offset index; nothing where the segment has no file of one.
    ///
    /// # Errors
    /// The system's.
    pub fn index(
        &self,
        segment: &SegmentAt,
        then: &mut dyn FnMut(IndexEntry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, InspectError> {
        let name = segment.file.with_extension("index");
        let io = InspectError::io(&name);
        let file = match self.disk.open(&name, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
            file => file.map_err(&io)?,
        };
        let mut piece = vec![0; 64 << 10];
        let mut at = 0;
        loop {
            let n = read_full_at(&*file, &mut piece, at).map_err(&io)?;
            for (i, entry) in piece[..n].as_chunks::<8>().0.iter().enumerate() {
                let [a, b, c, d, e, f, g, h] = *entry;
                let entry = IndexEntry {
                    place: Place { file: name.clone(), byte: at + i as u64 * 8 },
                    offset: segment.base + i64::from(u32::from_be_bytes([a, b, c, d])),
                    position: u32::from_be_bytes([e, f, g, h]),
                };
                if then(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at += n as u64;
            if n < piece.len() {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Both slots of the catalog, as they lie on the disk.
    #[must_use]
    pub fn catalogs(&self) -> Vec<CatalogSlot> {
        let slots = self.surveys.iter().flat_map(|s| s.catalogs.iter().map(|slot| (&s.dir, slot)));
        slots.map(|(dir, (name, found))| describe(dir.join(name), found)).collect()
    }

    /// Names of partitions by their handles, as the journal names them: topic and number.
    #[must_use]
    pub fn handles(&self) -> std::collections::BTreeMap<u64, (String, i32)> {
        let topics = self.log.topics();
        let partitions = topics.iter().flat_map(|t| t.partitions());
        partitions.map(|p| (p.handle(), (p.topic().to_string(), p.id().get()))).collect()
    }
}

fn describe(file: PathBuf, found: &Found) -> CatalogSlot {
    let mut slot = CatalogSlot {
        file,
        sequence: None,
        clean: false,
        cycle: 0,
        generation: 0,
        log_clock_ms: 0,
        topics: Vec::new(),
        partitions: Vec::new(),
    };
    let Found::Intact(catalog) = found else { return slot };
    slot.sequence = Some(catalog.sequence);
    slot.clean = catalog.clean;
    (slot.cycle, slot.generation) = (catalog.mark.cycle, catalog.mark.generation);
    slot.log_clock_ms = catalog.log_clock_ms;
    let state = catalog.state();
    slot.topics = state
        .topics()
        .map(|t| {
            let handles = t.partitions.iter().map(|p| p.handle.get()).collect();
            (t.name.to_string(), *t.id.as_bytes(), t.settings.clone(), handles)
        })
        .collect();
    slot.partitions = catalog
        .partitions
        .iter()
        .map(|p| {
            let bytes = p.segments.iter().map(|s| s.bytes).sum();
            (p.handle, p.log_start, p.end, p.segments.len(), bytes)
        })
        .collect();
    slot
}

/// Every cycle in the ring's files of one directory whose header is whole, also those that are checkpointed and wait to be written over, in the
/// order of the files. Works where a start would not. `ControlFlow::Break` ends it.
///
/// # Errors
/// [`InspectError`].
pub fn cycles(
    disk: Arc<dyn Disk>,
    dir: &Path,
    then: &mut dyn FnMut(Cycle) -> ControlFlow<()>,
) -> Result<(), InspectError> {
    let survey = Survey::take(disk, dir)?;
    let Ok(Some(superblock)) = survey.superblock else {
        let why = "its superblock cannot be read; `headwater log verify` tells more".to_owned();
        return Err(InspectError::NotADirectory { dir: dir.to_owned(), why });
    };
    let mark = survey.catalog().map(|catalog| catalog.mark);
    let mut bytes = Vec::new();
    for slot in &survey.slots {
        let name = journal::path(dir, slot.number);
        let io = InspectError::io(&name);
        let mut at = BLOCK_BYTES;
        while at + BLOCK_BYTES <= slot.size_bytes {
            let mut head = [0; cycle::HEADER_BYTES];
            let n = read_full_at(&*slot.file, &mut head, at).map_err(&io)?;
            let header = Header::decode(&head[..n], &superblock.directory_id)
                .filter(|header| at + header.size_bytes() <= slot.size_bytes);
            let Some(header) = header else {
                at += BLOCK_BYTES;
                continue;
            };
            // Checked against the file's size above.
            bytes.resize(header.length as usize, 0);
            let from = at + cycle::HEADER_BYTES as u64;
            let n = read_full_at(&*slot.file, &mut bytes, from).map_err(&io)?;
            let whole = n == bytes.len() && crc32c(&bytes) == header.frames_crc;
            let frames = whole.then(|| cycle::frames(&bytes)).flatten();
            let needed =
                |m: journal::Mark| m.generation == header.generation && m.cycle < header.number;
            let found = Cycle {
                place: Place { file: name.clone(), byte: at },
                generation: header.generation,
                number: header.number,
                synced_through: header.synced_through,
                length: header.length,
                is_needed: mark.is_some_and(needed),
                frames: frames.map(|frames| frames.iter().map(frame).collect()),
            };
            // A damaged cycle's length is not to be believed: the next one may begin at any block.
            at += if whole { header.size_bytes() } else { BLOCK_BYTES };
            if then(found).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn frame(frame: &Frame<'_>) -> CycleFrame {
    match frame {
        Frame::Metadata { sequence, record } => CycleFrame::Metadata {
            sequence: *sequence,
            record: match MetadataRecord::decode(record) {
                Ok(record) => format!("{record:?}"),
                Err(error) => error.to_string(),
            },
        },
        Frame::LogStart { handle, offset } => {
            CycleFrame::LogStart { handle: *handle, offset: *offset }
        }
        Frame::Batches { handle, bytes, .. } => {
            let (mut at, mut batches, mut offsets) = (0, 0, None);
            while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
                let (first, _) = offsets.unwrap_or((header.base_offset, 0));
                offsets = Some((first, header.last_offset()));
                batches += 1;
                at += header.size_bytes();
            }
            CycleFrame::Batches { handle: *handle, batches, offsets, bytes: bytes.len() as u64 }
        }
        Frame::Extent { handle, extent } => CycleFrame::Extent {
            handle: *handle,
            offsets: (extent.first.get(), extent.end.get() - 1),
            segment: extent.segment.get(),
            byte: extent.byte,
            bytes: u64::from(extent.length),
        },
        frame => {
            // Any other kind needs no more than to be seen.
            if let Frame::Ends(ends) = frame {
                let ends = ends.iter().map(|end| (end.handle, end.first, end.end));
                CycleFrame::Ends(ends.collect())
            } else {
                CycleFrame::Other(format!("{frame:?}"))
            }
        }
    }
}
