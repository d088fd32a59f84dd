//! Where MQTT meets the log: routes, records, acknowledgements, and uplinks to central Kafka clusters.
//!
//! The only crate that names both worlds. Steps 5 to 7, 10 and 11 of the life of a PUBLISH are [`Bridge`], an
//! implementation of [`headwater_mqtt::Store`] over [`headwater_log::Log`].

mod arrival;
mod bridge;
mod cache;
pub mod explain;
mod ingress;
#[cfg(test)]
mod label_tests;
pub mod ledger;
pub mod partitioner;
pub mod record;
pub mod route;
mod streams;
#[cfg(test)]
mod testing;
mod ticket;
pub mod topics;
pub mod uplink;

pub use bridge::{Bridge, Counters};
pub use explain::{Explanation, explain};
pub use route::Router;
pub use ticket::Ticket;
