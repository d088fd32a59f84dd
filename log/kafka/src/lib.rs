//! The Kafka protocol over Headwater's log.
//!
//! [`wire`] turns bytes into messages and back.
//! [`client`] talks to central clusters.
//! Invariant: only `wire` names the codec crate, so that it can be replaced in one place.
//! Neighbours: `headwater-log` below, the process (`edge`) and `bridge` above.

pub mod client;
pub mod wire;
