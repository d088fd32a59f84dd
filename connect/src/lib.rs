//! The connector runtime: Connect-style sources and sinks, declared in TOML, over the log.
//!
//! Purpose: run source connectors that append records and sink connectors that read them, with
//! transforms, error policies and dead-letter topics, and keep their offsets in the log itself
//! (ARCHITECTURE.md, invariant 3). It names neither MQTT nor Kafka: connectors that speak those use the
//! clients of their own crates.
//!
//! Only the crate's place in the dependency order exists in this version.
