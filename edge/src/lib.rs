//! The process: everything composed, and the command line around it.
//!
//! [`Node`] is the composition: the log, the MQTT front, the Kafka door, uplinks and HTTP, on their threads. It is a
//! library so that tests and the demo start nodes in process. Invariant: the only crate that knows all the others, and
//! the only place where threads, listeners and the machine's clock and disk are made. Neighbours: all.

pub mod cli;

mod node;
mod scratch;
mod signals;
mod sources;

mod http;
mod log_tools;
mod logging;

mod bench;
mod demo;
mod selftest;

pub use node::{Address, Node, Seams, StartError, Stopped, UplinkLeft};
