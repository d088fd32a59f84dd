//! Where MQTT meets the log: routes, records, acknowledgements, and uplinks to central Kafka clusters.
//!
//! The only crate that names both worlds.

pub mod explain;
pub mod partitioner;
pub mod record;
pub mod route;
#[cfg(test)]
mod testing;

pub use explain::{Explanation, explain};
pub use route::Router;
