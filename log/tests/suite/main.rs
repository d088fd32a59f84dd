//! The log on a disk that forgets: crashes at every operation, faults at every operation, damage, versions.
//!
//! `sim` drives a log through the steps of `step` against the ledger of `model`, into which `collect` takes what is acknowledged;
//! `verify` says what must hold after a restart. A failing case prints the line that plays it again.

mod clients;
mod collect;
mod compaction;
mod crash;
mod damage;
mod directory;
mod fixtures;
mod handles;
mod hostile;
mod inspect;
mod keys;
mod lookup;
mod model;
mod points;
mod random;
mod repair;
mod replica;
mod room;
mod rot;
mod sim;
mod step;
mod tail;
mod transactions;
mod verify;

/// All topics of the scripts.
const TOPICS: [&str; 8] = ["sensors", "fast", "again", "small", "wide", "old", "keyed", "bulky"];
