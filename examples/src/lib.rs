//! Headwater by example: one folder per user story, each with a config, and a README to be followed word for word.
//!
//! Invariant: every example runs as written; this crate's tests read the configs, the suites follow the READMEs.

/// A gateway without a centre: devices in, `kcat` out.
pub const GATEWAY_ALONE: &str = include_str!("../gateway-alone/headwater.toml");

/// Routes, two topics, an uplink to a real Kafka.
pub const PLANT_TO_KAFKA: &str = include_str!("../plant-to-kafka/headwater.toml");
