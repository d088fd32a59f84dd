//! The Kafka protocol over Headwater's log.
//!
//! [`wire`] turns bytes into messages and back, [`server`] answers Kafka clients from the log,
//! [`client`] speaks to the Kafka of others.
//! Invariant: only `wire` names the codec crate, so that it can be replaced in one place.
//! Neighbours: `headwater-log` below, the process (`edge`) and `bridge` above.

pub mod client;
pub mod server;
pub mod wire;
