//! Looking into a data directory that no process uses: `verify`, `dump` and `repair`.
//!
//! A directory is inspected by starting it on an [`overlay::Overlay`]: recovery runs as it would at a start, on a copy in
//! memory of what it changes, and what it finds is what a start would find. So nothing here knows a second time what a
//! journal frame does to a segment. What recovery cannot tell, or need not read, is looked at directly: both catalog slots,
//! every file of the ring, every byte of every segment and index, and files that belong to nobody.
//!
//! Invariant: [`verify`] and the dumps never change a byte, take no memory in the size of the log, and end on any input.
//! Neighbours: `recovery` does the understanding, `headwater log` on the command line the talking.

mod dump;
mod finding;
mod held;
mod hints;
mod mend;
mod overlay;
mod quarantine;
mod rebuild;
mod repair;
mod segment;
mod survey;
mod verify;

pub use dump::{
    BatchAt, CatalogSlot, Cycle, CycleFrame, Dump, IndexEntry, Place, SegmentAt, cycles,
};
pub use finding::{Finding, Lost, Severity};
pub use repair::{Repaired, repair};
pub use survey::InspectError;
pub use verify::{Figures, Progress, Verdict, verify};
